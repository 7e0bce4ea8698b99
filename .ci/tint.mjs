// Validates WGSL files with the compiler of Chrome (Dawn with Tint), without any driver.
//
//   node tint.mjs FOLDER_WITH_NODE_MODULES FOLDER_WITH_WGSL
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const [modules, folder] = process.argv.slice(2);
const require = createRequire(join(resolve(modules), 'package.json'));
const { create } = await import(pathToFileURL(require.resolve('webgpu')));

const files = readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort();
if (files.length === 0) {
  console.error(`no .wgsl files in ${folder}`);
  process.exit(1);
}
// The bindings forget to keep this one alive for their devices: it has to outlive the loop.
const gpu = create(['backend=null']);
globalThis.kept = gpu;
const adapter = await gpu.requestAdapter();
const wanted = ['shader-f16', 'subgroups'].filter((name) => adapter.features.has(name));
const device = await adapter.requestDevice({ requiredFeatures: wanted });

// A compiler that accepts this one would say nothing about the others: a barrier that only some
// invocations reach, which naga lets through.
device.pushErrorScope('validation');
device.createShaderModule({
  code: `@compute @workgroup_size(64)
    fn main(@builtin(local_invocation_index) i: u32) { if i < 32u { workgroupBarrier(); } }`,
});
if (!(await device.popErrorScope())) {
  console.error('the compiler overlooks a barrier in divergent control flow');
  process.exit(1);
}

let bad = 0;
for (const file of files) {
  let code = readFileSync(join(folder, file), 'utf8');
  // The compiler of wgpu rejects the line that this one requires.
  if (/\bsubgroup[A-Z]|\bsubgroup_/.test(code) && !/^\s*enable\s+subgroups/m.test(code)) {
    code = `enable subgroups;${code}`;
  }
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ label: file, code });
  const refused = await device.popErrorScope();
  // Whether entry point and bindings hold together is only looked at here. Sizes are not ours to
  // judge: what the tests generate is for the adapter that they ran on.
  device.pushErrorScope('validation');
  device.createComputePipeline({ layout: 'auto', compute: { module } });
  const unusable = await device.popErrorScope();
  const error = refused ?? unusable;
  if (error && (refused || !/maximum allowed/.test(error.message))) {
    bad += 1;
    console.error(`${file}: ${error.message.trim()}\n`);
  }
}
console.log(`${files.length - bad} of ${files.length} shaders are accepted`);
// Dawn keeps the process alive otherwise.
process.exit(bad === 0 ? 0 : 1);
