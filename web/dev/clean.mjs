// Before the build: removes what an earlier one left, but for the folder and its .gitignore.
import { rmSync } from 'node:fs';

for (const name of ['assets', 'index.html', 'index.html.gz', 'index.html.br', 'favicon.svg']) {
  rmSync(new URL(`../dist/${name}`, import.meta.url), { recursive: true, force: true });
}
