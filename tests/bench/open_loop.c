/* Open-loop load over HTTP/1.1, as wrk2 has it: requests are due at a fixed rate, whether or not answers come, and each is timed from when it
 * was due, not from when a connection was free to send it. So a server that stops for a while is charged for everybody who had to wait.
 *
 *   open_loop PORT CONNECTIONS RATE SECONDS FILE
 *
 * FILE holds the requests, each preceded by a line "SECOND SIZE": the second of Unix time from which it is sent, in ascending order, until
 * the next second that is listed; the last one ends the run. Those of one second take turns. Prints one line of JSON: answers, how many were
 * not 200, and percentiles in microseconds.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include "load.h"

#define MAX_CONNECTIONS 4096
#define MAX_BATCHES 600
#define HEAD_SIZE 8192

struct request { const char *text; size_t size; };
struct batch { long second; struct request *requests; size_t count; };
struct connection { int fd; uint64_t due_ns; size_t held, body_left; int in_body, status; char head[HEAD_SIZE]; };

static struct batch batches[MAX_BATCHES];
static size_t batch_count, begun, turn;
static struct connection connections[MAX_CONNECTIONS];
static int idle[MAX_CONNECTIONS], idle_count, idle_first;
static uint32_t *taken_us;
static uint64_t *waiting;
static size_t answered, wrong, first_waiting, last_waiting;

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    long second; size_t size;
    if (file == NULL) fail(path);
    while (fscanf(file, "%ld %zu", &second, &size) == 2) {
        char *text = malloc(size);
        if (fgetc(file) != '\n' || text == NULL || fread(text, 1, size, file) != size) fail("requests");
        if (batch_count == 0 || batches[batch_count - 1].second != second) {
            if (batch_count == MAX_BATCHES) break;
            batches[batch_count++].second = second;
        }
        struct batch *of = &batches[batch_count - 1];
        if ((of->count & (of->count + 1)) == 0) { /* full: 0, 1, 3, 7 ... */
            of->requests = realloc(of->requests, (2 * of->count + 1) * sizeof *of->requests);
            if (of->requests == NULL) fail("requests");
        }
        of->requests[of->count++] = (struct request){text, size};
    }
    fclose(file);
}

static void send_on(int number, uint64_t due_ns) {
    struct connection *c = &connections[number];
    time_t second = time(NULL);
    while (begun < batch_count && batches[begun].second <= second) begun++;
    if (begun == 0 || begun == batch_count) { fprintf(stderr, "no request for this second\n"); exit(1); }
    struct batch *of = &batches[begun - 1];
    struct request *request = &of->requests[turn++ % of->count];
    c->due_ns = due_ns;
    c->held = c->body_left = 0;
    c->in_body = c->status = 0;
    if (write(c->fd, request->text, request->size) != (ssize_t)request->size) fail("write");
}

/* Connections take turns: the one that has been idle longest sends next. */
static void set_idle(int number) { idle[(idle_first + idle_count++) % MAX_CONNECTIONS] = number; }

static int take_idle(void) {
    int number = idle[idle_first];
    idle_first = (idle_first + 1) % MAX_CONNECTIONS;
    idle_count--;
    return number;
}

/* One answer is complete: the connection takes who has waited longest, or is idle. */
static void complete(int number) {
    struct connection *c = &connections[number];
    taken_us[answered++] = (uint32_t)((now_ns() - c->due_ns) / 1000);
    wrong += c->status != 200;
    if (first_waiting < last_waiting) send_on(number, waiting[first_waiting++]);
    else set_idle(number);
}

static void read_from(int number) {
    static char body[65536];
    struct connection *c = &connections[number];
    for (;;) {
        char *into = c->in_body ? body : c->head + c->held;
        size_t room = c->in_body ? (c->body_left < sizeof body ? c->body_left : sizeof body) : HEAD_SIZE - 1 - c->held;
        ssize_t got = read(c->fd, into, room);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) { fprintf(stderr, "a connection was closed\n"); exit(1); }
        if (c->in_body) c->body_left -= (size_t)got;
        else {
            c->held += (size_t)got;
            c->head[c->held] = 0;
            char *end = strstr(c->head, "\r\n\r\n");
            if (end == NULL) continue;
            char *length = strcasestr(c->head, "\r\ncontent-length:");
            size_t here = c->held - (size_t)(end + 4 - c->head), size = length ? strtoul(length + 17, NULL, 10) : 0;
            c->status = atoi(c->head + 9);
            c->in_body = 1;
            c->body_left = size - here;
        }
        if (c->in_body && c->body_left == 0) { complete(number); return; }
    }
}

static int ascending(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t percentile(double part) { return taken_us[(size_t)((double)(answered - 1) * part)]; }

int main(int count, char **arguments) {
    if (count != 6) { fprintf(stderr, "usage: open_loop PORT CONNECTIONS RATE SECONDS FILE\n"); return 2; }
    int port = atoi(arguments[1]), wanted = atoi(arguments[2]), poll = epoll_create1(0);
    double rate = atof(arguments[3]), seconds = atof(arguments[4]);
    size_t total = (size_t)(rate * seconds), sent = 0;
    if (wanted < 1 || wanted > MAX_CONNECTIONS || total < 1) { fprintf(stderr, "out of range\n"); return 2; }
    prctl(PR_SET_TIMERSLACK, 1); /* else a sleep is 50 microseconds longer than asked for */
    read_requests(arguments[5]);
    taken_us = calloc(total, sizeof *taken_us);
    waiting = calloc(total, sizeof *waiting);
    for (int number = 0; number < wanted; number++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = (uint32_t)number};
        connections[number].fd = connect_to(port);
        fcntl(connections[number].fd, F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, connections[number].fd, &event) != 0) fail("epoll_ctl");
        set_idle(number);
    }
    uint64_t began = now_ns(), given_up = began + (uint64_t)((seconds + 20) * 1e9);
    while (answered < total) {
        uint64_t now = now_ns(), due = began + (uint64_t)((double)sent / rate * 1e9);
        for (; sent < total && due <= now; due = began + (uint64_t)((double)++sent / rate * 1e9)) {
            if (idle_count > 0) send_on(take_idle(), due);
            else waiting[last_waiting++] = due;
        }
        if (now > given_up) { fprintf(stderr, "%zu of %zu answers are missing\n", total - answered, total); return 1; }
        uint64_t sleep_ns = sent < total && due > now ? due - now : 10000000;
        struct timespec sleep = {.tv_nsec = (long)(sleep_ns < 10000000 ? sleep_ns : 10000000)};
        struct epoll_event events[256];
        int ready = epoll_pwait2(poll, events, 256, &sleep, NULL);
        if (ready < 0 && errno != EINTR) fail("epoll_pwait2");
        for (int number = 0; number < ready; number++) read_from((int)events[number].data.u32);
    }
    qsort(taken_us, answered, sizeof *taken_us, ascending);
    printf("{\"answered\":%zu,\"wrong\":%zu,\"p50\":%u,\"p99\":%u,\"p999\":%u,\"worst\":%u}\n",
        answered, wrong, percentile(0.5), percentile(0.99), percentile(0.999), taken_us[answered - 1]);
    return 0;
}
