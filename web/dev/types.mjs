// Makes src/api.ts from openapi.json, which is the control plane's GET /api/v1/openapi.json.
import { readFileSync, writeFileSync } from 'node:fs';
import openapiTS, { astToString } from 'openapi-typescript';

const document = JSON.parse(readFileSync(new URL('../openapi.json', import.meta.url), 'utf8'));
// Several operations share an id (`get`, `list`), which would become one type. The page calls by
// path and needs none.
for (const operations of Object.values(document.paths)) {
  for (const operation of Object.values(operations)) delete operation.operationId;
}
const types = astToString(await openapiTS(document));
writeFileSync(new URL('../src/api.ts', import.meta.url), `// Made by \`npm run types\`. Do not edit.\n\n${types}`);
