import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig } from 'vite';

// Where `npm run dev` finds a control plane: `--plain-http` of a real one, or `npm run fake`.
const plane = process.env.MUSTER_PLANE ?? 'http://127.0.0.1:8470';

export default defineConfig({
  plugins: [svelte()],
  build: {
    outDir: 'dist',
    // The folder's own .gitignore stays: cargo watches the folder.
    emptyOutDir: false,
    target: 'es2022',
    // The page's content security policy is `default-src 'self'`: nothing may become a data: URL, and
    // nothing may become an inline script.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // Sizes are judged by dev/finish.mjs, against the bound of the product.
    reportCompressedSize: false,
  },
  server: {
    host: '127.0.0.1',
    // A plane takes a change only from its own origin, and here that is what the proxy speaks for.
    proxy: { '/api': { target: plane, changeOrigin: true, headers: { origin: plane } } },
  },
});
