/* WebSocket sessions: the load, and the service that it reaches through whoever is measured. What they say is given to them.
 *
 *   session service PORT ANSWER EVENT
 *   session client PORT CONNECTIONS SECONDS WINDOW HANDSHAKE EXPECTED FIRST MESSAGES
 *
 * ANSWER, EVENT and EXPECTED are a frame each, FIRST and MESSAGES files of masked ones.
 *
 * The service answers every message with ANSWER, unless the first of its connection says "flood": then it sends EVENT as fast as it is read.
 * The client opens its connections, of which each sends the next message of FIRST if there is one, and keeps WINDOW of MESSAGES in flight on
 * each, every message the next of the file. After SECONDS it awaits the answers that are due. What comes must be EXPECTED, again and again,
 * byte for byte: else it says what came and fails. Prints one line of JSON: answers, bytes and seconds until then, and answers in all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include "load.h"

#define MAX_CONNECTIONS 4096
#define BUFFER_SIZE 65536
#define PATIENCE_NS 10000000000u

static int poll_fd;

static void watch(int operation, int fd, uint32_t events, void *data) {
    struct epoll_event event = {.events = events, .data.ptr = data};
    if (epoll_ctl(poll_fd, operation, fd, &event) != 0) fail("epoll_ctl");
}

/* The size of the masked frame that these bytes begin with; 0: not all of it is there. */
static size_t frame_size(const char *data, size_t size) {
    const unsigned char *head = (const unsigned char *)data;
    if (size < 8) return 0;
    size_t length = head[1] & 0x7F, whole = length == 126 ? 8 + ((size_t)head[2] << 8 | head[3]) : 6 + length;
    if (length == 127) { fprintf(stderr, "a frame of 64 KiB\n"); exit(1); }
    return whole <= size ? whole : 0;
}

/* One frame over and over: a buffer full of it begins with any of its bytes. */
struct repeated { char *text; size_t period; };

static struct repeated repeated(const char *frame) {
    struct repeated made = {.period = strlen(frame)};
    size_t size = BUFFER_SIZE + made.period;
    made.text = malloc(size);
    if (made.text == NULL) fail("malloc");
    for (size_t at = 0; at < size; at++) made.text[at] = frame[at % made.period];
    return made;
}

/* -- the service */

struct session { int fd, open, begun, flooding; size_t held, sent; char data[BUFFER_SIZE]; };

static struct repeated answer, event_frame;

static void hang_up(struct session *s) {
    close(s->fd);
    free(s);
}

static void say(struct session *s, const char *text, size_t size) {
    ssize_t sent = send(s->fd, text, size, MSG_NOSIGNAL);
    if (sent >= 0 && (size_t)sent != size) fail("an answer was not taken");
}

/* Begins a session; whoever asks for none, to see whether the proxy serves, is told so. Returns whether it goes on. */
static int shake_hands(struct session *s) {
    static const char no[] = "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    static const char yes[] = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\n";
    char *end = memmem(s->data, s->held, "\r\n\r\n", 4);
    if (end == NULL) return 1;
    *end = 0;
    s->open = strcasestr(s->data, "\r\nupgrade: websocket") != NULL;
    say(s, s->open ? yes : no, strlen(s->open ? yes : no));
    s->held -= (size_t)(end + 4 - s->data);
    memmove(s->data, end + 4, s->held);
    return s->open;
}

static int asks_for_flood(char *frame, size_t size) {
    size_t head = (frame[1] & 0x7F) == 126 ? 8 : 6;
    for (size_t at = head; at < size; at++) frame[at] ^= frame[head - 4 + (at - head) % 4];
    return memmem(frame + head, size - head, "flood", 5) != NULL;
}

static void answer_all(struct session *s) {
    size_t at = 0, size, count = 0;
    while ((size = frame_size(s->data + at, s->held - at)) > 0) {
        if (!s->begun && asks_for_flood(s->data + at, size)) {
            s->flooding = 1;
            watch(EPOLL_CTL_MOD, s->fd, EPOLLIN | EPOLLOUT, s);
        }
        s->begun = 1;
        at += size;
        count++;
    }
    s->held -= at;
    memmove(s->data, s->data + at, s->held);
    if (count > 0 && !s->flooding) say(s, answer.text, count * answer.period);
}

static void serve_session(struct session *s, uint32_t events) {
    if (events & ~(uint32_t)EPOLLOUT) {
        ssize_t got = recv(s->fd, s->data + s->held, sizeof s->data - s->held, 0);
        if (got <= 0) { hang_up(s); return; }
        s->held += (size_t)got;
        if (!s->open && !shake_hands(s)) { hang_up(s); return; }
        if (s->open) answer_all(s);
    }
    if (events & EPOLLOUT) {
        ssize_t sent = send(s->fd, event_frame.text + s->sent % event_frame.period, BUFFER_SIZE, MSG_NOSIGNAL);
        if (sent > 0) s->sent += (size_t)sent;
    }
}

static void serve(int port) {
    struct sockaddr_in at = loopback(port);
    struct rlimit files;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listening, (struct sockaddr *)&at, sizeof at) != 0 || listen(listening, 2048) != 0) fail("listen");
    watch(EPOLL_CTL_ADD, listening, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(poll_fd, events, 256, -1);
        for (int number = 0; number < ready; number++) {
            if (events[number].data.ptr != NULL) { serve_session(events[number].data.ptr, events[number].events); continue; }
            int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0) continue;
            struct session *s = malloc(sizeof *s);
            if (s == NULL) fail("malloc");
            memset(s, 0, offsetof(struct session, data));
            s->fd = fd;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            watch(EPOLL_CTL_ADD, fd, EPOLLIN, s);
        }
    }
}

/* -- the client */

struct messages { char *text; size_t size, at; };
struct connection { int fd; size_t received; };

static struct connection connections[MAX_CONNECTIONS];
static struct messages following;
static struct repeated expected;
static size_t window, due, answered, received;

static struct messages read_messages(const char *path) {
    struct messages found = {0};
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) fail(path);
    found.size = (size_t)ftell(file);
    found.text = malloc(found.size + 1);
    rewind(file);
    if (found.text == NULL || fread(found.text, 1, found.size, file) != found.size) fail(path);
    fclose(file);
    return found;
}

/* The next so many messages; after the last comes the first. */
static void send_next(int fd, struct messages *of, size_t count) {
    while (count > 0) {
        size_t size = 0, next = 0;
        for (; count > 0 && (next = frame_size(of->text + of->at + size, of->size - of->at - size)) > 0; count--) size += next;
        if (size == 0) { fprintf(stderr, "a file of messages ends within one\n"); exit(1); }
        if (send(fd, of->text + of->at, size, MSG_NOSIGNAL) != (ssize_t)size) fail("send");
        of->at = of->at + size < of->size ? of->at + size : 0;
    }
}

static void open_session(struct connection *c, int port, const char *handshake, struct messages *first) {
    char head[4096];
    size_t held = 0;
    c->fd = connect_to(port);
    if (send(c->fd, handshake, strlen(handshake), MSG_NOSIGNAL) < 0) fail("send");
    while (memmem(head, held, "\r\n\r\n", 4) == NULL) {
        ssize_t got = recv(c->fd, head + held, sizeof head - held, 0);
        if (got <= 0) fail("the handshake was not answered");
        held += (size_t)got;
    }
    if (memcmp(head, "HTTP/1.1 101 ", 13) != 0) { fprintf(stderr, "no session was opened: %.*s\n", (int)held, head); exit(1); }
    if (first->size > 0) send_next(c->fd, first, 1);
}

/* Counts the answers that have come to a connection; returns how many. */
static size_t take_answers(struct connection *c) {
    static char data[BUFFER_SIZE];
    ssize_t got = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return 0;
    if (got <= 0) { fprintf(stderr, "a connection was closed\n"); exit(1); }
    size_t from = c->received % expected.period, count = (from + (size_t)got) / expected.period;
    if (memcmp(data, expected.text + from, (size_t)got) != 0) {
        size_t at = 0;
        while (data[at] == expected.text[from + at]) at++;
        at -= (from + at) % expected.period <= at ? (from + at) % expected.period : at;
        fprintf(stderr, "an answer was not the expected one: %.*s\n", (int)got - (int)at, data + at);
        exit(1);
    }
    c->received += (size_t)got;
    received += (size_t)got;
    answered += count;
    return count;
}

/* Takes answers, each followed by another message if it is to be, until the time or until no more are due. */
static void run_until(uint64_t end_ns, int followed) {
    struct epoll_event events[256];
    while (now_ns() < end_ns && (followed || due > 0)) {
        int ready = epoll_wait(poll_fd, events, 256, 10);
        for (int number = 0; number < ready; number++) {
            struct connection *c = events[number].data.ptr;
            size_t count = take_answers(c);
            if (window == 0 || count == 0) continue;
            if (followed) send_next(c->fd, &following, count);
            else due -= count;
        }
    }
}

static void await_all(void) {
    run_until(now_ns() + PATIENCE_NS, 0);
    if (due > 0) { fprintf(stderr, "%zu answers are missing\n", due); exit(1); }
}

static void load(int port, int wanted, double seconds, const char *handshake, struct messages first) {
    for (struct connection *c = connections; c < connections + wanted; c++) {
        open_session(c, port, handshake, &first);
        watch(EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
        if (window > 0 && first.size > 0) due++;
        await_all();
    }
    answered = received = 0;
    uint64_t began = now_ns();
    for (struct connection *c = connections; c < connections + wanted; c++) send_next(c->fd, &following, window);
    due = window * (size_t)wanted;
    run_until(began + (uint64_t)(seconds * 1e9), 1);
    uint64_t took = now_ns() - began;
    size_t answered_then = answered, received_then = received;
    await_all();
    printf("{\"answered\":%zu,\"bytes\":%zu,\"seconds\":%.6f,\"messages\":%zu}\n", answered_then, received_then, (double)took / 1e9, answered);
}

int main(int count, char **arguments) {
    poll_fd = epoll_create1(0);
    if (count == 5 && strcmp(arguments[1], "service") == 0) {
        answer = repeated(arguments[3]);
        event_frame = repeated(arguments[4]);
        serve(atoi(arguments[2]));
    }
    if (count != 10 || strcmp(arguments[1], "client") != 0) { fprintf(stderr, "usage: see the head of session.c\n"); return 2; }
    int wanted = atoi(arguments[3]);
    if (wanted < 1 || wanted > MAX_CONNECTIONS) { fprintf(stderr, "out of range\n"); return 2; }
    window = strtoul(arguments[5], NULL, 10);
    expected = repeated(arguments[7]);
    following = read_messages(arguments[9]);
    load(atoi(arguments[2]), wanted, atof(arguments[4]), arguments[6], read_messages(arguments[8]));
    return 0;
}
