// A browser's EventSource, as the package `eventsource` has it for Node: prints each event as a line of JSON and leaves
// everything else, reconnecting included, to the EventSource.
'use strict';

const EventSource = require('eventsource');

const source = new EventSource(process.argv[2]);
for (const kind of ['state', 'bookmark', 'changed', 'compacted']) {
  source.addEventListener(kind, (event) => {
    console.log('event ' + JSON.stringify({ kind, id: event.lastEventId, data: JSON.parse(event.data) }));
  });
}
process.stdin.on('end', () => process.exit(0)).resume();
