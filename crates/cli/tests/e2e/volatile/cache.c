/* A volatile write cache before files, for tests: put before a process by LD_PRELOAD, it makes SIGKILL lose what a power cut would.
 *
 * Owns pread64, pwrite64, fdatasync and fsync of regular files below $VOLATILE_DIR, as the pread backend uses them. What is written stays in
 * this process's memory, in sectors of 512 bytes; reads see it; a flush hands all of it to the file. Chance, seeded by $VOLATILE_SEED,
 * lets every fourth sector through at once, so that after a SIGKILL writes are torn at sectors and later ones are there without earlier
 * ones. Invariants: a sector is in the cache or in the file, never half in each; a flush that returned has handed everything over that was
 * written before. The file itself is not synced: SIGKILL spares the kernel's cache. Holes punched go straight to the file: a disk may
 * discard at once, and what lies in the cache stays on top.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define SECTOR 512
#define FILES 64

struct cached {
    dev_t dev;
    ino_t ino;
    int ours;
    size_t sectors;
    unsigned char **sector; /* NULL: as in the file. */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct cached files[FILES];
static size_t known;
static uint64_t chance;
static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);

/* Nothing sensible can go on: a test that does not see its cache would prove nothing. */
static void give_up(const char *why) {
    dprintf(2, "volatile cache: %s\n", why);
    abort();
}

__attribute__((constructor)) static void begin(void) {
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    const char *seed = getenv("VOLATILE_SEED");
    if (!real_pread || !real_pwrite || !real_fdatasync || !real_fsync || !getenv("VOLATILE_DIR") || !seed)
        give_up("it lacks a function, VOLATILE_DIR or VOLATILE_SEED");
    chance = strtoull(seed, NULL, 10) * 2 + 1;
}

/* splitmix64. */
static uint64_t random_number(void) {
    uint64_t z = chance += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The cache of the file behind `fd`, NULL if it is none of ours. The lock is held. */
static struct cached *cache_of(int fd) {
    struct stat at;
    if (fstat(fd, &at) != 0 || !S_ISREG(at.st_mode)) return NULL;
    for (size_t i = 0; i < known; i++)
        if (files[i].dev == at.st_dev && files[i].ino == at.st_ino) return files[i].ours ? &files[i] : NULL;
    if (known == FILES) give_up("too many files");
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (len < 0) give_up("a file has no path");
    path[len] = 0;
    const char *dir = getenv("VOLATILE_DIR");
    struct cached *new = &files[known++];
    *new = (struct cached){.dev = at.st_dev, .ino = at.st_ino, .ours = strncmp(path, dir, strlen(dir)) == 0};
    if (!new->ours) return NULL;
    new->sectors = at.st_size / SECTOR;
    new->sector = calloc(new->sectors ? new->sectors : 1, sizeof *new->sector);
    if (!new->sector) give_up("no memory");
    return new;
}

static int whole(const struct cached *file, size_t len, off64_t at) {
    return at % SECTOR == 0 && len % SECTOR == 0 && at >= 0 && (at + len) / SECTOR <= file->sectors;
}

static void through(int fd, const void *bytes, off64_t at) {
    if (real_pwrite(fd, bytes, SECTOR, at) != SECTOR) give_up("a sector could not be written");
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) {
    pthread_mutex_lock(&lock);
    struct cached *file = cache_of(fd);
    if (!file) {
        pthread_mutex_unlock(&lock);
        return real_pwrite(fd, bytes, len, at);
    }
    if (!whole(file, len, at)) give_up("a write is not of whole sectors inside the file");
    for (size_t done = 0; done < len; done += SECTOR) {
        unsigned char **sector = &file->sector[(at + done) / SECTOR];
        if (random_number() % 4 == 0) {
            through(fd, (const char *)bytes + done, at + done);
            free(*sector);
            *sector = NULL;
            continue;
        }
        if (!*sector && !(*sector = malloc(SECTOR))) give_up("no memory");
        memcpy(*sector, (const char *)bytes + done, SECTOR);
    }
    pthread_mutex_unlock(&lock);
    return len;
}

ssize_t pread64(int fd, void *bytes, size_t len, off64_t at) {
    pthread_mutex_lock(&lock);
    struct cached *file = cache_of(fd);
    ssize_t got = real_pread(fd, bytes, len, at);
    if (file && got > 0) {
        if (!whole(file, got, at)) give_up("a read is not of whole sectors inside the file");
        for (ssize_t done = 0; done < got; done += SECTOR) {
            const unsigned char *sector = file->sector[(at + done) / SECTOR];
            if (sector) memcpy((char *)bytes + done, sector, SECTOR);
        }
    }
    pthread_mutex_unlock(&lock);
    return got;
}

/* 1: flushed; 0: none of ours. */
static int flush(int fd) {
    pthread_mutex_lock(&lock);
    struct cached *file = cache_of(fd);
    for (size_t i = 0; file && i < file->sectors; i++) {
        if (!file->sector[i]) continue;
        through(fd, file->sector[i], (off64_t)i * SECTOR);
        free(file->sector[i]);
        file->sector[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
    return file != NULL;
}

int fdatasync(int fd) { return flush(fd) ? 0 : real_fdatasync(fd); }

int fsync(int fd) { return flush(fd) ? 0 : real_fsync(fd); }
