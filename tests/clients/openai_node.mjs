// The openai-node client against a running stack: node openai_node.mjs BASE_URL [KEY]
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, apiKey = "none"] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 300_000 });
const messages = [{ role: "user", content: "Which port does the LLM server listen on?" }];
const tool = { type: "function", function: { name: "look_up", parameters: { type: "object", properties: {} } } };

const answer = await client.chat.completions.create({ model: "tandem", messages, max_tokens: 40 });
assert.ok(answer.choices[0].message.content);
assert.ok(answer.usage.total_tokens > 0);
assert.equal(answer.tandem.outcome, "answered");
console.log("whole:", answer.choices[0].message.content);

let text = "";
const stream = await client.chat.completions.create({ model: "tandem", messages, max_tokens: 40, stream: true });
for await (const chunk of stream) text += chunk.choices[0].delta.content ?? "";
assert.ok(text);
console.log("stream:", text);

let last;
const counted = await client.chat.completions.create({
  model: "tandem", messages, max_tokens: 20, stream: true, stream_options: { include_usage: true },
});
for await (const chunk of counted) last = chunk;
assert.ok(last.usage.completion_tokens > 0);
assert.equal(last.tandem.outcome, "answered");
console.log("usage:", last.usage.total_tokens);

const helped = client.chat.completions.stream({ model: "tandem", messages, max_tokens: 40 });
assert.ok(await helped.finalContent());
console.log("stream helper: ok");

const explained = await client.chat.completions.create({
  model: "tandem", messages, max_tokens: 20, tandem: { explain: true },
});
assert.ok(explained.tandem.explain.query.texts.length > 0);
await assert.rejects(
  client.chat.completions.create({ model: "tandem", messages, tandem: { filter: { colour: "red" } } }),
  (error) => error.param === "tandem.filter.colour",
);
console.log("explain: ok");

const called = await client.chat.completions.create({ model: "plain", messages, tools: [tool], max_tokens: 40 });
assert.ok(called.choices[0].message.tool_calls?.length || called.choices[0].message.content);
console.log("tools:", called.choices[0].finish_reason);

await assert.rejects(client.chat.completions.create({ model: "nobody", messages }), (error) => {
  assert.ok(error instanceof OpenAI.NotFoundError);
  assert.equal(error.code, "model_not_found");
  return true;
});
await assert.rejects(client.chat.completions.create({ model: "tandem", messages: [] }), OpenAI.BadRequestError);
console.log("errors: ok");

const listed = await client.models.list();
assert.equal(listed.data[0].id, "tandem");
console.log("models: ok");
