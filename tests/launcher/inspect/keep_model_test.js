// The page's model against counting by hand, and that both scripts are free of syntax errors. Run by ctest where there
// is node: node keep_model_test.js FOLDER_OF_THE_SCRIPTS
"use strict";
const assert = require("node:assert");
const fs = require("node:fs");
const vm = require("node:vm");

const folder = process.argv[2];
const KeepModel = vm.runInThisContext(fs.readFileSync(folder + "/keep_model.js", "utf8") + "\nKeepModel");
new vm.Script(fs.readFileSync(folder + "/page.js", "utf8"));

function makeData(layers, heads, fed, events, bytes) {
  const evictedAt = [];
  let seed = 7;
  for (let i = 0; i < layers * heads * fed; ++i) {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    const event = Math.floor(seed / 65536) % (events.length + 1);
    // No event takes a token that comes later.
    evictedAt.push(event > 0 && events[event - 1] > i % fed ? event : 0);
  }
  const raw = Buffer.alloc(evictedAt.length * bytes);
  evictedAt.forEach((event, i) => bytes === 1 ? raw.writeUInt8(event, i) : raw.writeUInt16LE(event, 2 * i));
  return {
    evictedAt,
    data: {layers, kv_heads: heads, texts: new Array(fed + 1).fill("x"), final_length: fed, events,
           evicted_at: {bytes, base64: raw.toString("base64")}},
  };
}

const selections = [{layer: -1, head: -1}, {layer: 1, head: -1}, {layer: -1, head: 0}, {layer: 2, head: 1}];
for (const [events, bytes] of [[[5, 8, 11], 1], [[], 1], [Array.from({length: 300}, (_, i) => i + 3), 2]]) {
  const fed = Math.max(13, events.length + 5), layers = 3, heads = 2;
  const {evictedAt, data} = makeData(layers, heads, fed, events, bytes);
  const model = new KeepModel(data);
  // Full, after each event, now; without events only now.
  assert.deepStrictEqual(model.times.map((time) => time.event),
                         events.length === 0 ? [0] : [0, ...events.map((_, i) => i + 1), events.length]);
  assert.strictEqual(model.times.at(-1).length, fed);
  for (const selection of selections) {
    const overTime = model.countsOverTime(selection);
    model.times.forEach((time, t) => {
      const counts = model.counts(selection, time);
      for (let position = 0; position <= fed; ++position) {
        let expected = 0, first = 0, last = 0;
        for (let layer = 0; layer < layers; ++layer) {
          for (let head = 0; head < heads; ++head) {
            if (selection.layer >= 0 && layer !== selection.layer || selection.head >= 0 && head !== selection.head) continue;
            if (position >= fed || position >= time.length) continue;
            const event = evictedAt[(layer * heads + head) * fed + position];
            expected += event === 0 || event > time.event;
            if (event > 0 && event <= time.event) {
              first = first === 0 ? event : Math.min(first, event);
              last = Math.max(last, event);
            }
          }
        }
        const where = JSON.stringify({selection, time, position});
        assert.strictEqual(counts[position], expected, where);
        assert.strictEqual(overTime[t][position], expected, where);
        assert.strictEqual(model.held(position, selection, time), expected, where);
        assert.deepStrictEqual(model.eventsThatTook(position, selection, time), [first, last], where);
      }
    });
  }
  const all = {layer: -1, head: -1};
  assert.strictEqual(model.headsByLayer(2, model.times[0]).reduce((a, b) => a + b), model.counts(all, model.times[0])[2]);
}
assert.throws(() => new KeepModel({...makeData(1, 1, 4, [3], 1).data, final_length: 5}), /incomplete/);
console.log("passed");
