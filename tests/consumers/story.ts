// A client made from the .proto files alone: node story.js TARGET PROTOS GOOGLES_PROTOS PICTURES
// It lists, classifies, labels, retrains, watches, moves the champion, and reads an error's details; then says so as JSON.
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as grpc from "@grpc/grpc-js";
import * as loader from "@grpc/proto-loader";
import type { ProtoGrpcType as Classifying } from "./generated/classifier";
import type { ProtoGrpcType as Managing } from "./generated/models";
import type { ProtoGrpcType as Teaching } from "./generated/retraining";
import type { AddExamplesRequest } from "./generated/regraft/v1/AddExamplesRequest";
import type { AddExamplesResponse__Output } from "./generated/regraft/v1/AddExamplesResponse";
import type { RetrainJob__Output } from "./generated/regraft/v1/RetrainJob";

const [target, protos, googles, pictures] = process.argv.slice(2) as [string, string, string, string];
const options: loader.Options = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const red = readFileSync(join(pictures, "red.png"));
const greys = readdirSync(join(pictures, "grey")).map(file => readFileSync(join(pictures, "grey", file)));

function load<T>(name: string): T {
  const file = loader.loadSync(`regraft/v1/${name}.proto`, { ...options, includeDirs: [protos] });
  return grpc.loadPackageDefinition(file) as unknown as T;
}

const insecure = grpc.credentials.createInsecure();
const classifier = new (load<Classifying>("classifier").regraft.v1.Classifier)(target, insecure);
const models = new (load<Managing>("models").regraft.v1.Models)(target, insecure);
const retraining = new (load<Teaching>("retraining").regraft.v1.Retraining)(target, insecure);

type Unary<Q, R> = (request: Q, callback: grpc.requestCallback<R>) => grpc.ClientUnaryCall;

function ask<Q, R>(client: grpc.Client, rpc: Unary<Q, R>, request: Q): Promise<R> {
  return new Promise((resolve, reject) =>
    rpc.call(client, request, (error, response) => (error ? reject(error) : resolve(response!))),
  );
}

async function label(requests: AddExamplesRequest[]): Promise<AddExamplesResponse__Output[]> {
  const stream = retraining.AddExamples();
  for (const request of requests) stream.write(request);
  stream.end();
  const answers: AddExamplesResponse__Output[] = [];
  for await (const answer of stream) answers.push(answer);
  return answers;
}

async function watch(id: string): Promise<RetrainJob__Output[]> {
  const states: RetrainJob__Output[] = [];
  for await (const { job } of retraining.WatchRetrainJob({ id })) states.push(job);
  return states;
}

/** What google.rpc has to say about an error, by the name of the kind. */
function details(error: grpc.ServiceError): Record<string, object> {
  const files = ["google/rpc/status.proto", "google/rpc/error_details.proto"];
  const known = loader.loadSync(files, { ...options, json: true, includeDirs: [googles] });
  const status = known["google.rpc.Status"] as loader.MessageTypeDefinition<object, { details: { "@type": string }[] }>;
  const [bytes] = error.metadata.get("grpc-status-details-bin") as Buffer[];
  return Object.fromEntries(
    status.deserialize(bytes!).details.map(({ "@type": url, ...detail }) => [url.replace(/.*\./, ""), detail]),
  );
}

async function main(): Promise<void> {
  const { models: listed } = await ask(models, models.ListModels, { page_size: 10 });
  const name = listed[0]!.name;
  const alone = await ask(classifier, classifier.Classify, { name, image: red });
  const requests = [red, Buffer.from("no picture")].map(image => ({ name, image }));
  const batch = await ask(classifier, classifier.BatchClassify, { requests });
  const streamed = await label(greys.map(image => ({ name, image, label: "grey", source: "node" })));
  const again = greys.slice(0, 1).map(image => ({ name, image, label: "grey" }));
  const added = await ask(retraining, retraining.BatchAddExamples, { requests: again });

  const asked = { name, requested_by: "node", idempotency_key: randomUUID(), gate: "GATE_MODE_OFF" } as const;
  const started = await ask(retraining, retraining.Retrain, { ...asked, limits: { max_drop: 0.05 } });
  const states = await watch(started.job!.id);

  const version = listed[0]!.served_version;
  const move = { name, who: "node", request_id: randomUUID() };
  const promoted = await ask(models, models.Promote, { ...move, version });
  const back = await ask(models, models.Rollback, { name, who: "node", request_id: randomUUID() });
  const refused = await ask(retraining, retraining.Retrain, { name, limits: { max_drop: 5 } }).then(
    () => Promise.reject(new Error("5 is no share")),
    (error: grpc.ServiceError) => error,
  );

  console.log(
    JSON.stringify({
      names: listed.map(model => model.name),
      alone: alone.predictions[0]!.label,
      batch: batch.outcomes.map(each => each.response?.predictions[0]?.label ?? each.error?.reason),
      labelled: [...streamed, ...added.responses].map(answer => answer.outcome),
      states: states.map(job => job.state),
      finished_at: Number(states.at(-1)!.finished_at!.seconds),
      promoted: [promoted.effect!.event, promoted.model!.served_version],
      back: [back.effect!.event, back.model!.served_version],
      refused: { code: refused.code, text: refused.details, details: details(refused) },
    }),
  );
  for (const client of [classifier, models, retraining]) client.close();
}

void main();
