// A picture from the camera, where the browser offers one: only to pages from https or from this machine.

import { scaled } from "./picture.js";

export function camera(button, dialog, take, tell) {
  button.hidden = !navigator.mediaDevices?.getUserMedia;
  const video = dialog.querySelector("video");
  let stream = null;

  button.addEventListener("click", async () => {
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (error) {
      const refused = error.name === "NotAllowedError";
      tell(refused ? "The browser was not allowed to use the camera." : "There is no camera that can be used.");
      return;
    }
    video.srcObject = stream;
    dialog.showModal();
  });
  dialog.querySelector(".shoot").addEventListener("click", () => {
    // The middle square, which is what the dialog shows.
    const side = Math.min(video.videoWidth, video.videoHeight);
    if (!side) return;
    const square = document.createElement("canvas");
    square.width = square.height = side;
    square.getContext("2d").drawImage(video, (side - video.videoWidth) / 2, (side - video.videoHeight) / 2);
    dialog.close();
    take({ picture: scaled(square, side, side) });
  });
  dialog.querySelector(".cancel").addEventListener("click", () => dialog.close());
  // Also by Escape: the camera's light goes out with the dialog.
  dialog.addEventListener("close", () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = stream = null;
  });
}
