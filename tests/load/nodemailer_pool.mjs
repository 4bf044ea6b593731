// nodemailer's pool of 16 connections, composing the same mail for each recipient: node nodemailer_pool.mjs PORT COUNT MAIL.json
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const nodemailer = createRequire(`${process.env.NODEMAILER_AT}/`)("nodemailer");
const [port, count, mail] = [Number(process.argv[2]), Number(process.argv[3]), JSON.parse(readFileSync(process.argv[4]))];
const pool = nodemailer.createTransport({
  host: "127.0.0.1", port, secure: false, ignoreTLS: true, pool: true, maxConnections: 16, maxMessages: Infinity,
});
let next = 0;
async function line() {
  while (next < count) {
    const to = `node.${String(next++).padStart(6, "0")}@lasare.example`;
    await pool.sendMail({ from: mail.from, to, subject: mail.subject, text: mail.text, html: mail.html });
  }
}
await Promise.all(Array.from({ length: 32 }, line));
pool.close();
