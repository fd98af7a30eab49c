const answer = document.querySelector("#answer");
document.querySelector("#origin").textContent = location.origin;

document.querySelector("#picture").addEventListener("change", async ({ target }) => {
  const [picture] = target.files;
  if (!picture) return;
  try {
    const response = await fetch("predict", { method: "POST", headers: { "content-type": picture.type }, body: picture });
    const body = await response.json();
    if (!response.ok) throw new Error(body.detail);
    const [{ label, confidence }] = body.predictions;
    answer.textContent = `${label}, ${(100 * confidence).toFixed(1)} % sure`;
  } catch (error) {
    answer.textContent = `No answer: ${error.message}`;
  }
});
