// The data blocks, each decoded once into typed arrays when it is first looked at.
function decodeBytes(id) {
  const binary = atob(byId(id).textContent);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; ++i) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const meta = JSON.parse(new TextDecoder().decode(decodeBytes("meta")));
const decoded = new Map();

function once(id, decode) {
  if (!decoded.has(id)) decoded.set(id, decode());
  return decoded.get(id);
}
