# Build the images for several platforms and push them, with a bill of materials and with provenance:
#
#   docker buildx create --use --name mnist --driver docker-container
#   REGISTRY=registry.example.com/mnist-service TAG=0.1.0 docker buildx bake --file docker-bake.hcl --push
#
# With --print in place of --push it shows what would be built. For the platform that is not its own, the builder needs
# QEMU: docker run --privileged --rm tonistiigi/binfmt --install all

variable "REGISTRY" { default = "mnist-service" }
variable "TAG" { default = "latest" }
variable "EXTRAS" { default = "" }
variable "PYTHON_VERSION" { default = "3.14" }
variable "DEBIAN_RELEASE" { default = "trixie" }
# The base image. deploy/pin writes it with its digest into deploy/compose.pinned.yml.
variable "BASE" { default = "python:${PYTHON_VERSION}-slim-${DEBIAN_RELEASE}" }
variable "TORCH_INDEX" { default = "https://download.pytorch.org/whl/cpu" }

group "default" {
  targets = ["serving", "pipeline"]
}

target "common" {
  platforms = ["linux/amd64", "linux/arm64"]
  attest    = ["type=provenance,mode=max", "type=sbom"]
}

target "serving" {
  inherits = ["common"]
  target   = "serving"
  tags     = ["${REGISTRY}:${TAG}"]
  args     = { BASE = BASE, EXTRAS = EXTRAS }
}

target "pipeline" {
  inherits = ["common"]
  target   = "pipeline"
  tags     = ["${REGISTRY}:${TAG}-pipeline"]
  args     = { BASE = BASE, TORCH_INDEX = TORCH_INDEX }
}
