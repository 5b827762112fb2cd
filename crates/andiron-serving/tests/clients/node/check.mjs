// Drives a server with the clients of Node. The one argument is an object with `base`, `paths` and `models`.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, streamText } from "ai";

const { base, paths, models } = JSON.parse(process.argv[2]);
const has = (path) => paths.includes(path);
const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
const provider = createOpenAICompatible({ name: "andiron", baseURL: base, apiKey: "none", includeUsage: true });

const checks = {
  async openai_completions() {
    const body = { model: models.generate, prompt: "abc", max_tokens: 6, temperature: 0 };
    const whole = await client.completions.create(body);
    let text = "";
    for await (const chunk of await client.completions.create({ ...body, stream: true })) text += chunk.choices[0].text;
    assert.equal(text, whole.choices[0].text);
    await assert.rejects(client.completions.create({ ...body, temperature: -1 }), OpenAI.BadRequestError);
  },
  async openai_chat() {
    if (!has("/v1/chat/completions")) return "no /v1/chat/completions";
    const body = { model: models.generate, messages: [{ role: "user", content: "Say something." }], max_completion_tokens: 8, temperature: 0 };
    const whole = await client.chat.completions.create(body);
    let text = "";
    for await (const chunk of await client.chat.completions.create({ ...body, stream: true })) text += chunk.choices[0]?.delta.content ?? "";
    assert.equal(text, whole.choices[0].message.content);
  },
  async openai_responses() {
    if (!has("/v1/responses")) return "no /v1/responses";
    const body = { model: models.generate, input: "Say something.", max_output_tokens: 16, temperature: 0 };
    const whole = await client.responses.create(body);
    let text = "";
    for await (const event of await client.responses.create({ ...body, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
    }
    assert.equal(text, whole.output_text);
  },
  async openai_embeddings() {
    if (!has("/v1/embeddings")) return "no /v1/embeddings";
    const answer = await client.embeddings.create({ model: models.embed, input: ["a b", "c"] });
    assert.equal(answer.data.length, 2);
  },
  async ai_sdk_completion() {
    const { text, usage } = await generateText({ model: provider.completionModel(models.generate), prompt: "abc", maxOutputTokens: 6, temperature: 0, maxRetries: 0 });
    assert.ok(text.length > 0 && usage.outputTokens <= 6);
  },
  async ai_sdk_chat() {
    if (!has("/v1/chat/completions")) return "no /v1/chat/completions";
    const settings = { model: provider.chatModel(models.generate), prompt: "Say something.", maxOutputTokens: 8, temperature: 0, maxRetries: 0 };
    const whole = await generateText(settings);
    const stream = streamText({ ...settings, onError: ({ error }) => { throw error; } });
    let text = "";
    for await (const part of stream.textStream) text += part;
    assert.equal(text, whole.text);
    assert.ok((await stream.usage).outputTokens <= 8);
  },
  async ai_sdk_embedding() {
    if (!has("/v1/embeddings")) return "no /v1/embeddings";
    const { embedding } = await embed({ model: provider.textEmbeddingModel(models.embed), value: "a b", maxRetries: 0 });
    assert.ok(embedding.length > 0);
  },
};

for (const [name, check] of Object.entries(checks)) {
  const missing = await check();
  console.log(missing ? `skip node ${name}: this server has ${missing}` : `ok node ${name}`);
}
