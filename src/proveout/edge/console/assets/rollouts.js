// What a person orders of a rollout. The buttons stand in a section that is swapped: the document listens.

document.addEventListener("click", async ({ target }) => {
  const order = target.dataset?.order;
  if (!order || !confirm(`${target.textContent} the rollout of ${target.dataset.release}?`)) return;
  target.disabled = true;
  const response = await fetch(target.closest("[data-path]").dataset.path, {
    method: "POST",
    headers: { "x-proveout-console": "1", "content-type": "application/json" },
    body: JSON.stringify({ action: order }),
  });
  if (response.ok) return location.reload();
  target.disabled = false;
  alert((await response.json()).error.message);
});
