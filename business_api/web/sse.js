// Server-sent events from a fetch body (EventSource can neither POST nor send a key).

/** Events of a byte stream: `{event, data}`, `data` still text. One cut off by the end is dropped. */
export async function* serverEvents(stream) {
  let unread = "";
  for await (const text of textOf(stream)) {
    unread += text;
    const blocks = unread.split(/\r\n\r\n|\n\n|\r\r/);
    unread = blocks.pop();
    for (const block of blocks) {
      const found = eventOf(block);
      if (found) yield found;
    }
  }
}

async function* textOf(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.cancel().catch(() => {}); // the caller left: hang up
  }
}

function eventOf(block) {
  let event = "message";
  const lines = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") event = value;
    if (field === "data") lines.push(value);
  }
  return lines.length ? { event, data: lines.join("\n") } : null;
}
