// Pictures and videos: from files, the clipboard and the camera to what is sent, and how they are shown.

import { measure } from "./server.js";

const detail = () => document.getElementById("detail").value;

/** A picture or video that goes with a question. */
export class Picture {
  constructor(url, type, name) {
    Object.assign(this, { url, name, isVideo: type.startsWith("video/"), grids: [] });
  }

  static read(file) {
    return new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(new Picture(reader.result, file.type, file.name || "picture"));
      reader.onerror = () => reject(new Error(`${file.name} cannot be read`));
      reader.readAsDataURL(file);
    });
  }

  /** As it is sent. */
  get part() {
    if (this.isVideo) return { type: "video_url", video_url: { url: this.url } };
    return { type: "image_url", image_url: { url: this.url, detail: detail() } };
  }

  /** Asks the server how it is cut; gives the line to show. */
  async measure() {
    const { pictures, image_tokens } = await measure(this.part);
    this.grids = pictures;
    const tiles = pictures.reduce((sum, picture) => sum + picture.tiles, 0);
    return `${tiles} ${tiles === 1 ? "tile" : "tiles"}, ${image_tokens} tokens`;
  }

  /** A figure, over which `Tiles` can be laid. */
  figure() {
    const figure = document.createElement("figure");
    const media = document.createElement(this.isVideo ? "video" : "img");
    media.src = this.url;
    if (this.isVideo) Object.assign(media, { muted: true, controls: true, ariaLabel: this.name });
    else media.alt = this.name;
    figure.append(media);
    return figure;
  }
}

/** The tiles of one picture, dark until they are encoded. */
export class Tiles {
  constructor(figure, { rows, columns, tiles }) {
    this.count = tiles;
    this.element = document.createElement("div");
    this.element.className = "tiles";
    this.element.ariaHidden = "true";
    this.element.style.gridTemplate = `repeat(${rows || 1}, 1fr) / repeat(${columns || 1}, 1fr)`;
    this.element.append(...Array.from({ length: rows * columns || 1 }, () => document.createElement("i")));
    figure.append(this.element);
  }

  show(done) {
    [...this.element.children].forEach((tile, index) => tile.classList.toggle("done", index < done));
    this.element.classList.toggle("whole", done >= this.count);
  }
}

/** What a video element shows, as a JPEG. */
export function still(video, name = "photo.jpg") {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth;
  canvas.height = video.videoHeight;
  canvas.getContext("2d").drawImage(video, 0, 0);
  return new Picture(canvas.toDataURL("image/jpeg", 0.9), "image/jpeg", name);
}

/** Lets a video element show the camera; gives how to stop it. */
export async function openCamera(video) {
  if (!navigator.mediaDevices) throw new Error("a browser gives the camera to pages of this machine and of https only");
  const camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  video.srcObject = camera;
  await video.play();
  return () => {
    camera.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  };
}
