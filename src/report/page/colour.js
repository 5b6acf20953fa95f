// The largest code of each block of the grid: what a picture smaller than its matrix shows.
function pooledCodes(head, height, width) {
  const pooled = new (wide ? Uint16Array : Uint8Array)(height * width);
  for (let i = 0; i < head.rows; ++i) {
    const to = Math.floor((i * height) / head.rows) * width;
    for (let j = 0; j < head.columns; ++j) {
      const place = to + Math.floor((j * width) / head.columns);
      const code = head.codes[i * head.columns + j];
      if (code > pooled[place]) pooled[place] = code;
    }
  }
  return pooled;
}

function imageOfCodes(codes, height, width, theme) {
  const image = new ImageData(width, height);
  const table = rampTables[theme];
  codes.forEach((code, i) => {
    const tone = 3 * toneOf(toWeight(code));
    image.data.set([table[tone], table[tone + 1], table[tone + 2], 255], 4 * i);
  });
  return image;
}

function paintThumbnail(canvas, head, theme) {
  const height = Math.max(1, Math.min(head.rows, 64));
  const width = Math.max(1, Math.min(head.columns, 64));
  canvas.height = height;
  canvas.width = width;
  const image = imageOfCodes(pooledCodes(head, height, width), height, width, theme);
  canvas.getContext("2d").putImageData(image, 0, 0);
}
