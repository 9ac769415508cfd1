// Classifies crops, uint8 [side, side, 3] each in a file of its own: in_node.mjs MODEL SIDE CROP...
import { readFile } from "node:fs/promises";
import ort from "onnxruntime-node";

const [model, side, ...crops] = process.argv.slice(2);
const session = await ort.InferenceSession.create(model);
const answers = [];
for (const crop of crops) {
  const image = new ort.Tensor("uint8", new Uint8Array(await readFile(crop)), [1, Number(side), Number(side), 3]);
  const { probabilities, labels } = await session.run({ image }, ["probabilities", "labels"]);
  answers.push(Object.fromEntries(labels.data.map((label, k) => [label, probabilities.data[k]])));
}
console.log(JSON.stringify(answers));
