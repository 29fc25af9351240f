"use strict";
// Who holds which token, and when: the page's data without the page. One number for each (layer, head, position) says
// at which event the head let go of the token; 0: it never did.
class KeepModel {
  constructor(data) {
    this.layers = data.layers;
    this.heads = data.kv_heads;
    this.positions = data.texts.length;
    this.fed = data.final_length;  // the last token was sampled, but never fed
    this.evictedAt = KeepModel.decode(data.evicted_at);
    if (this.evictedAt.length !== this.layers * this.heads * this.fed) {
      throw new Error("the data of this page is incomplete: " + this.evictedAt.length + " entries");
    }
    // The moments to look at: full, when the first event was due; after each event; now. `event`: how many are past.
    this.times = data.events.map((length, i) => ({event: i + 1, length}));
    if (data.events.length > 0) this.times.unshift({event: 0, length: data.events[0]});
    this.times.push({event: data.events.length, length: this.fed});
  }

  static decode({bytes, base64}) {
    const text = atob(base64);
    if (bytes === 1) return Uint8Array.from(text, (c) => c.charCodeAt(0));
    const numbers = new Uint16Array(text.length / 2);
    for (let i = 0; i < numbers.length; ++i) numbers[i] = text.charCodeAt(2 * i) | text.charCodeAt(2 * i + 1) << 8;
    return numbers;
  }

  isHeld(layer, head, position, time) {
    if (position >= time.length) return false;
    const event = this.evictedAt[(layer * this.heads + head) * this.fed + position];
    return event === 0 || event > time.event;
  }

  // [first, last + 1] of what is selected; -1 selects all.
  layersOf(selection) { return selection.layer < 0 ? [0, this.layers] : [selection.layer, selection.layer + 1]; }
  headsOf(selection) { return selection.head < 0 ? [0, this.heads] : [selection.head, selection.head + 1]; }
  pairs(selection) {
    const [a, b] = this.layersOf(selection), [c, d] = this.headsOf(selection);
    return (b - a) * (d - c);
  }

  // How many of the selected (layer, head) pairs hold the token.
  held(position, selection, time) {
    const [firstLayer, endLayer] = this.layersOf(selection), [firstHead, endHead] = this.headsOf(selection);
    let held = 0;
    for (let layer = firstLayer; layer < endLayer; ++layer) {
      for (let head = firstHead; head < endHead; ++head) held += this.isHeld(layer, head, position, time);
    }
    return held;
  }

  // By position: how many of the selected (layer, head) pairs hold it.
  counts(selection, time) {
    const counts = new Uint32Array(this.positions), length = Math.min(time.length, this.fed);
    const [firstLayer, endLayer] = this.layersOf(selection), [firstHead, endHead] = this.headsOf(selection);
    for (let layer = firstLayer; layer < endLayer; ++layer) {
      for (let head = firstHead; head < endHead; ++head) {
        const base = (layer * this.heads + head) * this.fed;
        for (let position = 0; position < length; ++position) {
          const event = this.evictedAt[base + position];
          if (event === 0 || event > time.event) ++counts[position];
        }
      }
    }
    return counts;
  }

  // counts at all times, one row each; one pass over the data.
  countsOverTime(selection) {
    const numEvents = this.times.length > 1 ? this.times.length - 2 : 0;
    const lost = Array.from({length: numEvents + 1}, () => new Uint32Array(this.fed));  // [0]: never
    const [firstLayer, endLayer] = this.layersOf(selection), [firstHead, endHead] = this.headsOf(selection);
    for (let layer = firstLayer; layer < endLayer; ++layer) {
      for (let head = firstHead; head < endHead; ++head) {
        const base = (layer * this.heads + head) * this.fed;
        for (let position = 0; position < this.fed; ++position) ++lost[this.evictedAt[base + position]][position];
      }
    }
    const held = new Uint32Array(this.fed).fill(this.pairs(selection));
    let past = 0;
    return this.times.map((time) => {
      for (; past < time.event; ++past) {
        for (let position = 0; position < this.fed; ++position) held[position] -= lost[past + 1][position];
      }
      const row = new Uint32Array(this.positions);
      row.set(held.subarray(0, Math.min(time.length, this.fed)));
      return row;
    });
  }

  // How the token fares at that time: heads that hold it, by layer.
  headsByLayer(position, time) {
    return Array.from({length: this.layers}, (_, layer) => {
      let held = 0;
      for (let head = 0; head < this.heads; ++head) held += this.isHeld(layer, head, position, time);
      return held;
    });
  }

  // The first event at which a selected pair lost the token, and the last; [0, 0] where none did until `time`.
  eventsThatTook(position, selection, time) {
    let first = 0, last = 0;
    const [firstLayer, endLayer] = this.layersOf(selection), [firstHead, endHead] = this.headsOf(selection);
    for (let layer = firstLayer; layer < endLayer; ++layer) {
      for (let head = firstHead; head < endHead; ++head) {
        const event = position < this.fed ? this.evictedAt[(layer * this.heads + head) * this.fed + position] : 0;
        if (event === 0 || event > time.event) continue;
        if (first === 0 || event < first) first = event;
        if (event > last) last = event;
      }
    }
    return [first, last];
  }
}
