// Every page of a session: logging out.

document.getElementById("logout").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST", headers: { "x-proveout-console": "1" } });
  location.assign("/");
});
