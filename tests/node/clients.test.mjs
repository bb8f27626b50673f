// What the official Node client makes of the server; PROVEOUT_URL and PROVEOUT_KEY say which.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.PROVEOUT_URL}/v1`,
  apiKey: process.env.PROVEOUT_KEY,
  maxRetries: 0,
});
const messages = [{ role: "user", content: "one two three" }];
const weather = [{ role: "user", content: "What is the weather in Leeds?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters } }];
const schema = { type: "object", properties: { days: { type: "integer" } }, required: ["days"], additionalProperties: false };

test("models", async () => {
  const names = [];
  for await (const model of client.models.list()) names.push(model.id);
  assert.ok(names.includes("echo") && names.includes("local/all-minilm-l6-v2"));
  assert.equal((await client.models.retrieve("echo/desk")).id, "echo/desk");
});

test("chat", async () => {
  const { data, response } = await client.chat.completions.create({ model: "echo", messages }).withResponse();
  assert.equal(data.choices[0].message.content, "one two three");
  assert.equal(data.choices[0].finish_reason, "stop");
  assert.equal(data.usage.completion_tokens, 3);
  assert.equal(response.headers.get("x-proveout-request"), data.proveout.request);
});

test("chat, streamed", async () => {
  const runner = client.chat.completions.stream({ model: "echo", messages, stream_options: { include_usage: true } });
  let text = "";
  runner.on("content", (delta) => { text += delta; });
  const whole = await runner.finalChatCompletion();
  assert.equal(text, "one two three");
  assert.equal(whole.choices[0].message.content, text);
  assert.equal(whole.usage.total_tokens, 6);
});

test("tools, the whole loop", async () => {
  const asked = [];
  const runner = client.chat.completions.runTools({
    model: "acme/large",
    messages: weather,
    stream: true,
    tools: [{
      type: "function",
      function: { name: "get_weather", parameters, parse: JSON.parse, function: ({ city }) => { asked.push(city); return "rain"; } },
    }],
  });
  assert.match(await runner.finalContent(), /rain/);
  assert.deepEqual(asked, ["Leeds", "Hull"]);
});

test("JSON schema", async () => {
  const answer = await client.chat.completions.parse({
    model: "acme/large", messages,
    response_format: { type: "json_schema", json_schema: { name: "leave", strict: true, schema } },
  });
  assert.deepEqual(answer.choices[0].message.parsed, { days: 25 });
});

test("responses", async () => {
  const response = await client.responses.create({ model: "echo", instructions: "Be kind.", input: "one two three" });
  assert.equal(response.output_text, "one two three");
  assert.equal(response.status, "completed");
  assert.equal(response.usage.output_tokens, 3);
});

test("responses, streamed", async () => {
  const kinds = new Set();
  const stream = client.responses.stream({ model: "echo", input: "one two three" });
  for await (const event of stream) kinds.add(event.type);
  assert.equal((await stream.finalResponse()).output_text, "one two three");
  for (const kind of ["created", "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "completed"])
    assert.ok(kinds.has(`response.${kind}`), kind);
});

test("responses with tools and a schema", async () => {
  const stream = client.responses.stream({
    model: "acme/large", input: weather, tools: [{ type: "function", name: "get_weather", parameters, strict: true }],
  });
  const calls = (await stream.finalResponse()).output;
  assert.deepEqual(calls.map((c) => [c.type, c.name, c.parsed_arguments.city]),
    [["function_call", "get_weather", "Leeds"], ["function_call", "get_weather", "Hull"]]);
  const outputs = calls.map((c) => ({ type: "function_call_output", call_id: c.call_id, output: "rain" }));
  const input = [...weather, ...calls.map(({ parsed_arguments, ...call }) => call), ...outputs];
  assert.match((await client.responses.create({ model: "acme/large", input })).output_text, /rain/);
  const text = { format: { type: "json_schema", name: "leave", strict: true, schema } };
  assert.deepEqual((await client.responses.parse({ model: "acme/large", input: "days?", text })).output_parsed, { days: 25 });
});

test("completions and embeddings", async () => {
  const answer = await client.completions.create({ model: "echo", prompt: "one two" });
  assert.equal(answer.choices[0].text, "one two");
  let text = "";
  for await (const chunk of await client.completions.create({ model: "echo", prompt: "one two", stream: true }))
    text += chunk.choices[0].text;
  assert.equal(text, "one two");
  const model = "local/all-minilm-l6-v2";
  const packed = (await client.embeddings.create({ model, input: ["a cat", "a dog"] })).data;
  const plain = (await client.embeddings.create({ model, input: ["a cat", "a dog"], encoding_format: "float" })).data;
  assert.deepEqual(packed.map((e) => e.embedding.length), [384, 384]);
  packed[1].embedding.forEach((x, n) => assert.ok(Math.abs(x - plain[1].embedding[n]) < 1e-6));
});

test("errors", async () => {
  const asking = (model, more = {}) => client.chat.completions.create({ model, messages, ...more });
  await assert.rejects(asking("nowhere"), (e) => e instanceof OpenAI.NotFoundError && /GET \/v1\/models/.test(e.message)
    && e.headers.get("x-proveout-request").startsWith("req_"));
  await assert.rejects(asking("echo", { n: 2 }), (e) => e instanceof OpenAI.BadRequestError && e.code === "invalid_request");
  await assert.rejects(asking("local/smollm2-135m-instruct", { tools }), OpenAI.BadRequestError);
  await assert.rejects(client.responses.create({ model: "echo", input: "x", store: true }), OpenAI.BadRequestError);
  const stranger = new OpenAI({ baseURL: client.baseURL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  await assert.rejects(asking("acme/busy"), (e) => e instanceof OpenAI.InternalServerError && e.status === 503
    && e.headers.get("retry-after") === "7");
});

test("streams that break say so", async () => {
  const read = async (stream) => { for await (const _ of stream); };
  await assert.rejects(client.chat.completions.create({ model: "acme/cut", messages, stream: true }).then(read),
    (e) => e instanceof OpenAI.APIError && e.code === "truncated");
  await assert.rejects(client.responses.create({ model: "acme/cut", input: "x", stream: true }).then(read),
    (e) => e instanceof OpenAI.APIError && e.code === "truncated");
});
