// After the build: packs every file as it will travel, prints what a browser has to load, and fails
// where the JavaScript is over its bound.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';

const JS_GZIPPED_BYTES_MAX = 100_000;
/** What is smaller travels as it is. */
const PACKED_BYTES_MIN = 512;

const sizes = { js: 0, css: 0 };
for (const folder of [new URL('../dist/', import.meta.url), new URL('../dist/assets/', import.meta.url)]) {
  for (const name of readdirSync(folder)) {
    const kind = name.split('.').pop();
    if (!['html', 'js', 'css', 'svg'].includes(kind)) continue;
    const plain = readFileSync(new URL(name, folder));
    const gzip = gzipSync(plain, { level: 9 });
    if (kind in sizes) sizes[kind] += gzip.length;
    if (plain.length < PACKED_BYTES_MIN) continue;
    writeFileSync(new URL(`${name}.gz`, folder), gzip);
    writeFileSync(new URL(`${name}.br`, folder), brotliCompressSync(plain));
  }
}
const kb = (bytes) => `${(bytes / 1000).toFixed(1)} kB`;
console.log(`gzipped: ${kb(sizes.js)} JavaScript of ${kb(JS_GZIPPED_BYTES_MAX)}, ${kb(sizes.css)} CSS`);
if (sizes.js > JS_GZIPPED_BYTES_MAX) process.exit(1);
