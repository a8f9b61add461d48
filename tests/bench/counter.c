/* Preloaded into the worker that instructions.py counts: begins and ends a count, and slows the clocks down meanwhile.
 *
 * Under callgrind everything takes about SLOWER times as long. By the kernel's clocks, the gate would find each turn of its loop far too long
 * and put off the requests of strangers, and its timers would be due after a fiftieth of the requests. By these it has as much time for a
 * request as at full speed. The wall clock, which requests are signed by, is the kernel's.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#define SLOWER 50
#define CLOCKS 8

static int64_t real_then[CLOCKS], told_then[CLOCKS];
static int divisor = 1;

static int64_t real_ns(clockid_t clock) {
    struct timespec now;
    syscall(SYS_clock_gettime, clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t told_ns(clockid_t clock) { return told_then[clock] + (real_ns(clock) - real_then[clock]) / divisor; }

static void pass(int by) {
    for (clockid_t clock = 0; clock < CLOCKS; clock++) {
        int64_t real = real_ns(clock), told = told_ns(clock);
        real_then[clock] = real;
        told_then[clock] = told;
    }
    divisor = by;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (clock <= CLOCK_REALTIME || clock >= CLOCKS || clock == CLOCK_REALTIME_COARSE) return (int)syscall(SYS_clock_gettime, clock, now);
    int64_t told = told_ns(clock);
    now->tv_sec = told / 1000000000;
    now->tv_nsec = told % 1000000000;
    return 0;
}

void begin(void) { pass(SLOWER); CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(const char *name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; pass(1); }
