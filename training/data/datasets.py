"""The data sets: their files, their labels, and the SHA-256 digests that prove a file is the official one."""

from __future__ import annotations

from dataclasses import dataclass

# The names of the four files, in the order (training set, test set).
IMAGE_FILES = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
LABEL_FILES = ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte")
FILES = (IMAGE_FILES[0], LABEL_FILES[0], IMAGE_FILES[1], LABEL_FILES[1])


@dataclass(frozen=True)
class Dataset:
    """A data set of four files in the IDX format."""

    name: str
    torchvision: str
    """Name of its class in ``torchvision.datasets``, which is also the folder that torchvision keeps it in."""
    labels: tuple[str, ...]
    """Name of each class."""
    digests: tuple[str, str, str, str]
    """SHA-256 of the official files, in the order of FILES."""
    compressed: bool = False
    """Whether the official files are the ``.gz`` files. The digests are then those of the ``.gz`` files."""

    def file_name(self, name: str) -> str:
        """Return the official name of one of FILES, with ``.gz`` if the data set is compressed."""
        return f"{name}.gz" if self.compressed else name


DATASETS = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            name="mnist",
            torchvision="MNIST",
            labels=tuple("0123456789"),
            digests=(
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        Dataset(
            name="fashion-mnist",
            torchvision="FashionMNIST",
            labels=(
                "T-shirt/top",
                "Trouser",
                "Pullover",
                "Dress",
                "Coat",
                "Sandal",
                "Shirt",
                "Sneaker",
                "Bag",
                "Ankle boot",
            ),
            digests=(
                "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
            compressed=True,
        ),
    )
}
