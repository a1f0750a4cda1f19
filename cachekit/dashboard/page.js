// Fetches the page again and replaces the parts that changed, so that nothing flickers, scrolls or loses its selection.
(() => {
  const every = 1000 * document.body.dataset.refresh;
  const update = async () => {
    if (!document.hidden && getSelection().isCollapsed) {
      try {
        const reply = await fetch(location.pathname + location.search, {cache: "no-store"});
        if (!reply.ok) throw new Error(reply.status);
        const page = new DOMParser().parseFromString(await reply.text(), "text/html");
        for (const fresh of page.querySelectorAll("[data-live]")) {
          const old = document.getElementById(fresh.id);
          if (old.innerHTML !== fresh.innerHTML) old.innerHTML = fresh.innerHTML;
        }
        document.body.classList.remove("lost");
      } catch {
        document.body.classList.add("lost");
      }
    }
    setTimeout(update, every);
  };
  if (every) setTimeout(update, every);
})();
