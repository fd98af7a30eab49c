// Takes a picture with the camera.

import { scaled } from "./pictures.js";
import { newCanvas } from "./sheet.js";

export async function takePicture(dialog, onPicture, onError) {
  const video = dialog.querySelector("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch (error) {
    const forbidden = error.name === "NotAllowedError";
    onError(forbidden ? "The browser has no permission to use the camera." : "No usable camera was found.");
    return;
  }
  const stop = () => stream.getTracks().forEach((track) => track.stop());
  if (dialog.open) return stop(); // a second click
  dialog.querySelector(".take").onclick = () => {
    // The dialog shows the square in the middle of the video.
    const side = Math.min(video.videoWidth, video.videoHeight);
    if (!side) return;
    const square = newCanvas(side, side);
    square.getContext("2d").drawImage(video, (side - video.videoWidth) / 2, (side - video.videoHeight) / 2);
    dialog.close();
    onPicture({ picture: scaled(square, side, side) });
  };
  dialog.querySelector(".cancel").onclick = () => dialog.close();
  // Escape closes the dialog too.
  dialog.onclose = () => {
    stop();
    video.srcObject = null;
  };
  video.srcObject = stream;
  dialog.showModal();
}
