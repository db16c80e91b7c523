// Drives the official Node SDK for test_node_sdk.py: one JSON command a line on stdin, one JSON answer a line on stdout.
'use strict';

const readline = require('readline');
const { MQClient, MessageProperties } = require('@aliyunmq/mq-http-sdk');

function properties(settings) {
  const made = new MessageProperties();
  settings.forEach(([name, ...args]) => made[name](...args));
  return made;
}

async function answer({ client, member, of, call, args, settings }) {
  try {
    const caller = new MQClient(...client)[member](...of);
    const result = await caller[call](...args, ...(settings ? [properties(settings)] : []));
    return { code: result.code, body: result.body };
  } catch (error) {
    return { error: error.Code || error.message };
  }
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + '\n');
  }
  process.exit(0);
})();
