// Takes a picture with the camera. Browsers offer the camera only to pages from https or from the same machine.

import { scaled } from "./pictures.js";

export function camera(button, dialog, onPicture, onError) {
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  const video = dialog.querySelector("video");
  let stream = null;

  button.addEventListener("click", async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const forbidden = error.name === "NotAllowedError";
      onError(forbidden ? "The browser has no permission to use the camera." : "No usable camera was found.");
      return;
    }
    video.srcObject = stream;
    dialog.showModal();
  });
  dialog.querySelector(".take").addEventListener("click", () => {
    // The dialog shows the square in the middle of the video.
    const side = Math.min(video.videoWidth, video.videoHeight);
    if (!side) return;
    const square = document.createElement("canvas");
    square.width = square.height = side;
    square.getContext("2d").drawImage(video, (side - video.videoWidth) / 2, (side - video.videoHeight) / 2);
    dialog.close();
    onPicture({ picture: scaled(square, side, side) });
  });
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
  // Escape closes the dialog too.
  dialog.addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = stream = null;
  });
}
