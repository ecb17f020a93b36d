/* The floor in C: see floor.py, which compiles and runs this and reads the stamps.
 *
 *     floor DIRECTORY STAMPS OPERATIONS SECONDS REQUEST_BYTES REPLY_BYTES SYNCS
 *
 * Four processes on loopback: this one is the client, its children a leader and two followers. For each
 * operation they do what nobody can leave out, and nothing else. SYNCS 0: a read, whose round touches no
 * disk. Every process writes its own columns of a row of STAMPS (CLOCK_MONOTONIC, ns): no other traffic.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CLIENT_SENDS, LEADER_HAS, OWN_ON_DISK, APPEND_LEFT, FOLLOWER_HAS, FOLLOWER_ON_DISK, ACK_LEFT,
       ACK_HERE = 11, BY, COMMITTED, REPLY_LEFT, CLIENT_HAS, COLUMNS };
enum { FOLLOWERS = 2, EACH = 4, ACK_BYTES = 32, FILE_BYTES = 16 << 20 };
struct head { uint32_t size, operation; };

static int64_t (*stamps)[COLUMNS];
static long operations, request_bytes, reply_bytes;
static int syncs;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void check(int ok, const char *what) {
    if (!ok) { perror(what); _exit(1); }
}

static int listener(struct sockaddr_in *at) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof *at;
    memset(at, 0, sizeof *at);
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(fd, (struct sockaddr *)at, sizeof *at) == 0 && listen(fd, 4) == 0, "listen");
    check(getsockname(fd, (struct sockaddr *)at, &size) == 0, "getsockname");
    return fd;
}

static int tuned(int fd) {
    int on = 1;
    check(fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0, "connection");
    return fd;
}

static int dial(struct sockaddr_in *at) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    check(connect(fd, (struct sockaddr *)at, sizeof *at) == 0, "connect");
    return tuned(fd);
}

static int journal(const char *directory, int number) {
    char path[4096];
    static char zeros[1 << 20];
    snprintf(path, sizeof path, "%s/floor-%d", directory, number);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    check(fd >= 0, "open");
    for (long at = 0; at < FILE_BYTES; at += sizeof zeros)
        check(pwrite(fd, zeros, sizeof zeros, at) == sizeof zeros, "pwrite");
    check(fsync(fd) == 0, "fsync");
    return fd;
}

/* 0: the other side closed. */
static int take(int fd, char *into, long size) {
    for (long have = 0; have < size;) {
        long got = recv(fd, into + have, size - have, 0);
        if (got <= 0) return 0;
        have += got;
    }
    return 1;
}

static void say(int fd, const char *from, long size) {
    while (size > 0) {
        long sent = send(fd, from, size, MSG_NOSIGNAL);
        if (sent <= 0) _exit(0);   /* the other side closed, at the end */
        from += sent;
        size -= sent;
    }
}

static void keep(int file, const char *data, long size, long *at) {
    if (!syncs) return;
    if (*at + size > FILE_BYTES) *at = 0;
    check(pwrite(file, data, size, *at) == size && fdatasync(file) == 0, "sync");
    *at += size;
}

static void follow(int listening, const char *directory, int number) {
    int file = journal(directory, number + 1), fd = tuned(accept(listening, 0, 0));
    char *buffer = malloc(request_bytes), ack[ACK_BYTES] = {0};
    struct head *head = (struct head *)buffer;
    for (long at = 0; take(fd, buffer, request_bytes);) {
        int64_t *row = stamps[head->operation] + EACH * number;
        row[FOLLOWER_HAS] = now();
        keep(file, buffer, request_bytes, &at);
        row[FOLLOWER_ON_DISK] = now();
        memcpy(ack, head, sizeof *head);
        say(fd, ack, sizeof ack);
        row[ACK_LEFT] = now();
    }
    _exit(0);
}

static void lead(int listening, const char *directory, struct sockaddr_in *at) {
    int file = journal(directory, 0);
    struct pollfd polled[FOLLOWERS + 1];
    for (int n = 0; n < FOLLOWERS; n++) polled[n].fd = dial(&at[n]);
    polled[FOLLOWERS].fd = tuned(accept(listening, 0, 0));
    for (int n = 0; n <= FOLLOWERS; n++) polled[n].events = POLLIN;
    char *buffer = malloc(request_bytes), *reply = calloc(1, reply_bytes), ack[ACK_BYTES];
    struct head *head = (struct head *)buffer, *acked = (struct head *)ack;
    long offset = 0, answered = -1;
    for (;;) {
        check(poll(polled, FOLLOWERS + 1, -1) > 0, "poll");
        for (int n = 0; n < FOLLOWERS; n++) {
            if (!polled[n].revents || !take(polled[n].fd, ack, sizeof ack)) continue;
            if (acked->operation <= answered) continue;   /* the slower one's */
            int64_t *row = stamps[acked->operation];
            row[ACK_HERE] = row[COMMITTED] = now();
            row[BY] = n;
            answered = acked->operation;
            memcpy(reply, acked, sizeof *acked);
            say(polled[FOLLOWERS].fd, reply, reply_bytes);
            row[REPLY_LEFT] = now();
        }
        if (polled[FOLLOWERS].revents) {
            if (!take(polled[FOLLOWERS].fd, buffer, request_bytes)) _exit(0);
            int64_t *row = stamps[head->operation];
            row[LEADER_HAS] = now();
            for (int n = 0; n < FOLLOWERS; n++) {
                say(polled[n].fd, buffer, request_bytes);
                row[APPEND_LEFT + EACH * n] = now();
            }
            keep(file, buffer, request_bytes, &offset);
            row[OWN_ON_DISK] = now();
        }
    }
}

int main(int argc, char **argv) {
    check(argc == 8, "arguments");
    operations = atol(argv[3]);
    double seconds = atof(argv[4]);
    request_bytes = atol(argv[5]), reply_bytes = atol(argv[6]), syncs = atoi(argv[7]);
    int file = open(argv[2], O_RDWR | O_CREAT | O_TRUNC, 0600);
    long bytes = operations * sizeof *stamps;
    check(file >= 0 && ftruncate(file, bytes) == 0, "stamps");
    stamps = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    check(stamps != MAP_FAILED, "mmap");
    memset(stamps, 0, bytes);
    struct sockaddr_in at[FOLLOWERS], clients;
    int listening[FOLLOWERS], front = listener(&clients);
    for (int n = 0; n < FOLLOWERS; n++) listening[n] = listener(&at[n]);
    for (int n = 0; n < FOLLOWERS; n++)
        if (fork() == 0) follow(listening[n], argv[1], n);
    if (fork() == 0) lead(front, argv[1], at);
    int fd = dial(&clients);
    char *buffer = calloc(1, request_bytes), *reply = malloc(reply_bytes);
    struct head *head = (struct head *)buffer;
    head->size = request_bytes;
    int64_t until = 0;
    for (long number = 0; number < operations; number++) {
        head->operation = number;
        int64_t begun = now();
        if (number == 1) until = begun + (int64_t)(seconds * 1e9);   /* all are up now */
        if (until && begun > until) break;
        stamps[number][CLIENT_SENDS] = begun;
        say(fd, buffer, request_bytes);
        check(take(fd, reply, reply_bytes), "the leader is gone");
        stamps[number][CLIENT_HAS] = now();
    }
    shutdown(fd, SHUT_RDWR);
    close(fd);
    while (wait(0) > 0) {}
    return 0;
}
