// Reads a JSON list of replies on stdin and writes, for each, the data frame that Grafana makes of it:
// {name, refId, length, fields: [{name, type, unit, values}]}. A time zone of its own would show in string times.
const { toDataFrame } = require("@grafana/data");

let text = "";
process.stdin.setEncoding("utf8");
process.stdin.on("data", (chunk) => (text += chunk));
process.stdin.on("end", () => {
  const frames = JSON.parse(text).map((reply) => {
    const frame = toDataFrame(reply);
    const fields = frame.fields.map((field) => ({
      name: field.name,
      type: field.type,
      unit: field.config.unit ?? field.unit ?? null,
      values: Array.from(field.values),
    }));
    return { name: frame.name ?? null, refId: frame.refId ?? null, length: frame.length, fields };
  });
  process.stdout.write(JSON.stringify(frames));
});
