// A picture's menu -> the model in an offscreen document -> a notification. See docs/browser.md.
const MENU = { id: "describe", title: "Describe this picture", contexts: ["image"] };
chrome.runtime.onInstalled.addListener(() => chrome.contextMenus.create(MENU));

chrome.contextMenus.onClicked.addListener(async ({ srcUrl }) => {
  try {
    await offscreenDocument();
    const { text, error } = await chrome.runtime.sendMessage({ describe: srcUrl });
    notify(error ?? text);
  } catch (error) {
    notify(String(error.message ?? error));
  }
});

// Chrome ends a service worker that is idle for half a minute; the model lives in a document of its own.
async function offscreenDocument() {
  if (await chrome.offscreen.hasDocument()) return;
  const justification = "The model that describes pictures runs in a worker.";
  await chrome.offscreen.createDocument({ url: "offscreen.html", reasons: ["WORKERS"], justification });
}

function notify(message) {
  chrome.notifications.create({ type: "basic", iconUrl: "icon.png", title: "This picture", message });
}
