/* An AMQP 1.0 load made of Debian's C Proton, the same for every broker.
 *
 *   proton_load send     HOST:PORT ADDRESS CONNECTIONS MESSAGES BYTES WINDOW [durable]
 *   proton_load receive  HOST:PORT ADDRESS CONNECTIONS MESSAGES CREDIT
 *   proton_load latency  HOST:PORT ADDRESS MESSAGES BYTES
 *   proton_load fill     HOST:PORT ADDRESS MESSAGES BYTES WINDOW SECONDS
 *   proton_load idle     HOST:PORT CONNECTIONS SECONDS
 *
 * With several connections each has an address of its own: ADDRESS followed by its number. MESSAGES are those of all
 * connections together. WINDOW is how many messages a connection may have unacknowledged. Everything is at least once.
 * `send` and `receive` print the seconds between the first and the last message and the messages of each second;
 * `latency` prints microseconds: p50 and p99. `fill` sends durable messages that nobody reads until all are
 * acknowledged, or for so many seconds, and prints how many were. `idle` prints how many connections are open once all
 * are, or after so many seconds, and runs until it is ended.
 * It ends with 1 and a reason when a connection or a message is refused.
 */
#include <proton/connection.h>
#include <proton/delivery.h>
#include <proton/disposition.h>
#include <proton/link.h>
#include <proton/message.h>
#include <proton/proactor.h>
#include <proton/sasl.h>
#include <proton/session.h>
#include <proton/terminus.h>
#include <proton/transport.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 1 << 20 };

typedef struct {
    int number;
    long to_do, sent, settled;
    pn_link_t *sender;
} Client;

static pn_proactor_t *proactor;
static bool sends, receives, pings, fills, idles, durable;
static const char *address;
static long messages, settled, window, opened, seconds, connections = 1;
static size_t body_bytes;
static char *encoded;
static size_t encoded_bytes;
static double first, *latencies, sent_at;

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void fail(const char *what, const char *why) {
    fprintf(stderr, "%s: %s\n", what, why ? why : "");
    exit(1);
}

static void encode_message(void) {
    pn_message_t *message = pn_message();
    char *body = calloc(1, body_bytes + 1);
    memset(body, 'x', body_bytes);
    pn_message_set_durable(message, durable);
    pn_data_put_binary(pn_message_body(message), pn_bytes(body_bytes, body));
    pn_message_set_inferred(message, true);
    encoded_bytes = body_bytes + 4096;
    encoded = malloc(encoded_bytes);
    if (pn_message_encode(message, encoded, &encoded_bytes)) fail("encode", pn_error_text(pn_message_error(message)));
    pn_message_free(message);
    free(body);
}

static void connect_one(const char *to, Client *client, int number, long to_do) {
    pn_connection_t *connection = pn_connection();
    char container[64], host[256];
    snprintf(container, sizeof container, "load-%d-%d", getpid(), number);
    snprintf(host, sizeof host, "%.*s", (int)strcspn(to, ":"), to);
    pn_connection_set_container(connection, container);
    pn_connection_set_hostname(connection, host);
    client->number = number;
    client->to_do = to_do;
    pn_connection_set_context(connection, client);
    pn_transport_t *transport = pn_transport();
    pn_sasl_allowed_mechs(pn_sasl(transport), "ANONYMOUS");
    pn_proactor_connect2(proactor, connection, transport, to);
}

static void address_of(const Client *client, char *into, size_t bytes) {
    if (connections > 1) snprintf(into, bytes, "%s%d", address, client->number);
    else snprintf(into, bytes, "%s", address);
}

static void ask_for_queue(pn_terminus_t *terminus, const char *name) {
    pn_terminus_set_address(terminus, name);
    pn_data_t *capabilities = pn_terminus_capabilities(terminus);
    pn_data_put_symbol(capabilities, pn_bytes(5, "queue"));
}

static void open_links(pn_connection_t *connection, Client *client) {
    pn_session_t *session = pn_session(connection);
    char name[300];
    pn_session_set_incoming_capacity(session, 64 << 20);
    pn_session_open(session);
    address_of(client, name, sizeof name);
    if (receives || pings) {
        pn_link_t *link = pn_receiver(session, "receiver");
        ask_for_queue(pn_link_source(link), name);
        pn_link_open(link);
        pn_link_flow(link, pings ? 10 : window);
    }
    if (sends || pings) {
        client->sender = pn_sender(session, "sender");
        ask_for_queue(pn_link_target(client->sender), name);
        /* RabbitMQ makes a queue that outlives it, and syncs, only for this. */
        if (durable) pn_terminus_set_durability(pn_link_target(client->sender), PN_DELIVERIES);
        pn_link_set_snd_settle_mode(client->sender, PN_SND_UNSETTLED);
        pn_link_open(client->sender);
    }
}

static void send_one(Client *client) {
    uint64_t tag = ++client->sent;
    pn_delivery(client->sender, pn_dtag((const char *)&tag, sizeof tag));
    pn_link_send(client->sender, encoded, encoded_bytes);
    pn_link_advance(client->sender);
}

static void send_more(Client *client) {
    if (!client->sender) return;
    if (sends && first == 0 && pn_link_credit(client->sender) > 0) first = now();
    while (client->sent < client->to_do && client->sent - client->settled < window &&
           pn_link_credit(client->sender) > 0)
        send_one(client);
}

static int by_value(const void *a, const void *b) {
    double left = *(const double *)a, right = *(const double *)b;
    return left < right ? -1 : left > right;
}

static void finish(void) {
    if (pings) {
        qsort(latencies, messages, sizeof *latencies, by_value);
        printf("%.1f %.1f\n", latencies[messages / 2] * 1e6, latencies[messages * 99 / 100] * 1e6);
    } else if (fills) {
        printf("%ld\n", settled);
    } else {
        double elapsed = now() - first;
        printf("%.6f %.0f\n", elapsed, messages / elapsed);
    }
    fflush(stdout);
    _exit(0);
}

static void on_sent(Client *client, pn_delivery_t *delivery) {
    if (!pn_delivery_updated(delivery)) return;
    if (pn_delivery_remote_state(delivery) != PN_ACCEPTED) fail("a message", "was not accepted");
    pn_delivery_settle(delivery);
    client->settled++;
    if (pings) return;
    if (++settled == messages) finish();
    send_more(client);
}

static void ping(Client *client) {
    if (client->sent < messages && pn_link_credit(client->sender) > 0) {
        sent_at = now();
        send_one(client);
    }
}

static void on_received(Client *client, pn_link_t *link, pn_delivery_t *delivery) {
    static char buffer[LONGEST];
    if (!pn_delivery_readable(delivery) || pn_delivery_partial(delivery)) return;
    ssize_t read;
    while ((read = pn_link_recv(link, buffer, sizeof buffer)) > 0) { }
    if (first == 0) first = now();
    pn_delivery_update(delivery, PN_ACCEPTED);
    pn_delivery_settle(delivery);
    if (pings) {
        latencies[settled] = now() - sent_at;
        pn_link_flow(link, 1);
        if (++settled == messages) finish();
        ping(client);
        return;
    }
    if (pn_link_credit(link) <= window / 2) pn_link_flow(link, window - pn_link_credit(link));
    if (++settled == messages) finish();
}

static void say_opened(void) {
    static bool said;
    if (!said) printf("%ld\n", opened);
    said = true;
    fflush(stdout);
}

static void on_open(Client *client, pn_connection_t *connection) {
    if (idles) {
        pn_session_open(pn_session(connection));
        if (++opened == connections) say_opened();
        return;
    }
    open_links(connection, client);
}

static void handle(pn_event_t *event) {
    pn_connection_t *connection = pn_event_connection(event);
    Client *client = connection ? pn_connection_get_context(connection) : NULL;
    pn_link_t *link = pn_event_link(event);
    switch (pn_event_type(event)) {
    case PN_CONNECTION_INIT:
        pn_connection_open(connection);
        break;
    case PN_CONNECTION_REMOTE_OPEN:
        on_open(client, connection);
        break;
    case PN_LINK_FLOW:
        if (link == client->sender && pings && client->sent == 0) ping(client);
        else if (link == client->sender && !pings) send_more(client);
        break;
    case PN_DELIVERY:
        if (pn_link_is_sender(link)) on_sent(client, pn_event_delivery(event));
        else on_received(client, link, pn_event_delivery(event));
        break;
    case PN_PROACTOR_TIMEOUT:
        if (fills) finish();
        say_opened();
        break;
    case PN_LINK_REMOTE_CLOSE:
    case PN_LINK_REMOTE_DETACH:
        fail("link", pn_condition_get_description(pn_link_remote_condition(link)));
        break;
    case PN_SESSION_REMOTE_CLOSE:
        fail("session", pn_condition_get_description(pn_session_remote_condition(pn_event_session(event))));
        break;
    case PN_CONNECTION_REMOTE_CLOSE:
        fail("connection", pn_condition_get_description(pn_connection_remote_condition(connection)));
        break;
    case PN_TRANSPORT_CLOSED:
        fail("transport", pn_condition_get_description(pn_transport_condition(pn_event_transport(event))));
        break;
    default:
        break;
    }
}

int main(int count, char **words) {
    if (count < 4) fail("usage", "proton_load send|receive|latency|fill|idle HOST:PORT ...");
    fills = !strcmp(words[1], "fill");
    sends = fills || !strcmp(words[1], "send");
    receives = !strcmp(words[1], "receive");
    pings = !strcmp(words[1], "latency");
    idles = !strcmp(words[1], "idle");
    if (idles && count >= 5) {
        connections = atol(words[3]);
        seconds = atol(words[4]);
    } else if (fills && count >= 8) {
        address = words[3];
        messages = atol(words[4]);
        body_bytes = atol(words[5]);
        window = atol(words[6]);
        seconds = atol(words[7]);
        durable = true;
    } else if (pings && count >= 6) {
        address = words[3];
        messages = atol(words[4]);
        body_bytes = atol(words[5]);
        window = 1;
    } else if ((sends && !fills && count >= 8) || (receives && count >= 7)) {
        address = words[3];
        connections = atol(words[4]);
        messages = atol(words[5]);
        body_bytes = sends ? atol(words[6]) : 0;
        window = atol(words[sends ? 7 : 6]);
        durable = sends && count > 8;
    } else {
        fail("usage", "too few words");
    }
    if (connections < 1 || (!idles && (messages < 1 || window < 1))) fail("usage", "numbers must be positive");
    encode_message();
    latencies = calloc(messages + 1, sizeof *latencies);
    proactor = pn_proactor();
    if (seconds > 0) pn_proactor_set_timeout(proactor, seconds * 1000);
    Client *clients = calloc(connections, sizeof *clients);
    for (long number = 0; number < connections; number++)
        connect_one(words[2], &clients[number], number,
                    messages / connections + (number < messages % connections));
    for (;;) {
        pn_event_batch_t *batch = pn_proactor_wait(proactor);
        pn_event_t *event;
        while ((event = pn_event_batch_next(batch))) handle(event);
        pn_proactor_done(proactor, batch);
    }
}
