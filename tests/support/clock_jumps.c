/* Between a process and its wall clock: every 0.2 s it jumps, by up to a day in either direction.
 *
 * The monotonic clock is left alone, and says when to jump, so that all processes agree on the time.
 * CLOCK_JUMPS_SEED chooses the jumps. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

#define DAY_SECONDS 86400
#define JUMPS_PER_SECOND 5

static int true_time(clockid_t clock, struct timespec *time)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, time);
}

/* Thorough mixing of a number: the finalizer of SplitMix64. */
static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static time_t offset_seconds(void)
{
    struct timespec now;
    const char *seed = getenv("CLOCK_JUMPS_SEED");
    true_time(CLOCK_MONOTONIC, &now);
    uint64_t jump = (uint64_t)now.tv_sec * JUMPS_PER_SECOND + (uint64_t)now.tv_nsec * JUMPS_PER_SECOND / 1000000000u;
    uint64_t chance = mixed(jump * 0x9e3779b97f4a7c15u + (seed == NULL ? 0 : strtoull(seed, NULL, 10)));
    return (time_t)(chance % (2 * DAY_SECONDS + 1)) - DAY_SECONDS;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    int failed = true_time(clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += offset_seconds();
    return failed;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &now);
    if (!failed) {
        time->tv_sec = now.tv_sec;
        time->tv_usec = now.tv_nsec / 1000;
    }
    return failed;
}

time_t time(time_t *stored)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (stored != NULL)
        *stored = now.tv_sec;
    return now.tv_sec;
}
