/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Servers, certificates and a relay for the tests of NBD disks. Everything lives in one temporary
 * folder of the test; the programs die with the test's process.
 */
#ifndef XV_TESTS_NBD_SERVERS_H
#define XV_TESTS_NBD_SERVERS_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "unit.h"

#define MAX_SERVERS 4

struct place {
    char folder[64];
    pid_t servers[MAX_SERVERS];
    int stdins[MAX_SERVERS];
    int count;
};

static inline void make_place(struct place *place)
{
    memset(place, 0, sizeof *place);
    strcpy(place->folder, "/tmp/nbd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(place->folder));
}

__attribute__((format(printf, 3, 4))) static inline const char *
place_path(const struct place *place, char *path, const char *format, ...)
{
    char name[100];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    snprintf(path, 200, "%s/%s", place->folder, name);
    return path;
}

__attribute__((format(printf, 1, 2))) static inline void shell(const char *format, ...)
{
    char command[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    int rc = system(command);
    ck_assert_msg(rc == 0, "'%s' ended with %d", command, rc);
}

static inline bool have_program(const char *name)
{
    char command[100];
    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", name);
    return system(command) == 0;
}

/* Runs a shell command until the test's end; its standard input ends then too. */
static inline pid_t start_server(struct place *place, const char *command)
{
    int ends[2];
    ck_assert_int_lt(place->count, MAX_SERVERS);
    ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
    char text[2000];
    snprintf(text, sizeof text, "exec %s", command);
    pid_t child = unit_fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(ends[0], 0);
        execl("/bin/sh", "sh", "-c", text, (char *)NULL);
        _exit(127);
    }
    close(ends[0]);
    place->servers[place->count] = child;
    place->stdins[place->count++] = ends[1];
    return child;
}

static inline void wait_for_file(pid_t server, const char *path)
{
    for (int i = 0; i < 6000; i++) {
        if (access(path, F_OK) == 0)
            return;
        int status;
        ck_assert_msg(waitpid(server, &status, WNOHANG) == 0, "the server ended at once");
        usleep(10000);
    }
    ck_abort_msg("the server did not start");
}

static inline void drop_place(struct place *place)
{
    for (int i = 0; i < place->count; i++) {
        close(place->stdins[i]);
        kill(place->servers[i], SIGTERM);
        waitpid(place->servers[i], NULL, 0);
    }
    shell("rm -rf %s", place->folder);
}

/* Takes a port until the test's process ends, as the pool simulator does: who chooses a port listens
 * at it only later. */
static inline bool claim_port(uint16_t port)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    int length = snprintf(name.sun_path + 1, sizeof name.sun_path - 1, "xvsa-test-port-%u", port);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&name, size) == 0)
        return true;
    close(fd);
    return false;
}

/* Below the ports that the system gives to connections, which might have one before the server does. */
static inline uint16_t free_port(void)
{
    static unsigned seed;
    if (seed == 0)
        seed = (unsigned)getpid();
    for (int i = 0; i < 1000; i++) {
        uint16_t port = (uint16_t)(20000 + rand_r(&seed) % 12000);
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_port = htons(port),
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_free = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (is_free && claim_port(port))
            return port;
    }
    ck_abort_msg("no port is free");
    return 0;
}

/* Makes NAME-cert.pem and NAME-key.pem, self-signed. */
static inline void make_certificate(const struct place *place, const char *name)
{
    shell("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=host.pool "
          "-keyout %s/%s-key.pem -out %s/%s-cert.pem >/dev/null 2>&1",
          place->folder, name, place->folder, name);
}

static inline char *read_text(const struct place *place, const char *name)
{
    char path[200], *text = calloc(1, 10000);
    FILE *file = fopen(place_path(place, path, "%s", name), "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_gt(fread(text, 1, 9999, file), 0);
    fclose(file);
    return text;
}

/* nbdkit on a TCP port; options and plugin as on its command line. certificate NULL: plain. */
static inline uint16_t start_nbdkit(struct place *place, const char *certificate,
                                    const char *arguments)
{
    char command[1500], tls[300] = "", ready[200];
    uint16_t port = free_port();
    place_path(place, ready, "nbdkit-%u.pid", port);
    if (certificate != NULL) {
        shell("mkdir %s/tls-%u && cd %s/tls-%u && cp ../%s-cert.pem server-cert.pem && "
              "cp ../%s-cert.pem ca-cert.pem && cp ../%s-key.pem server-key.pem",
              place->folder, port, place->folder, port, certificate, certificate, certificate);
        snprintf(tls, sizeof tls, "--tls=require --tls-certificates=%s/tls-%u", place->folder,
                 port);
    }
    snprintf(command, sizeof command, "nbdkit -f -r -i 127.0.0.1 -p %u -P %s %s %s", port, ready,
             tls, arguments);
    wait_for_file(start_server(place, command), ready);
    return port;
}

static inline uint16_t start_simulator(struct place *place, const char *certificate,
                                       const char *export_name)
{
    const char *root = getenv("XVSA_SOURCE_ROOT");
    char command[1000], ready[200], tls[300] = "";
    place_path(place, ready, "sim-%d", place->count);
    if (certificate != NULL)
        snprintf(tls, sizeof tls, "%s/%s-cert.pem %s/%s-key.pem", place->folder, certificate,
                 place->folder, certificate);
    snprintf(command, sizeof command, "python3 %s/tests/unit/nbd_sim.py %s/disk '%s' %s %s",
             root == NULL ? "." : root, place->folder, export_name, ready, tls);
    wait_for_file(start_server(place, command), ready);
    FILE *file = fopen(ready, "r");
    unsigned port = 0;
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fscanf(file, "%u", &port), 1);
    fclose(file);
    return (uint16_t)port;
}

/* Forwards TCP connections and disturbs them. Set the fields before a connection comes in. */
struct relay {
    uint16_t port, upstream;
    int listener;
    pthread_t thread;
    atomic_int disturb;                /* connections still to be disturbed */
    atomic_uint_least64_t least, most; /* bytes towards the client before that happens, at random */
    atomic_bool stall;                 /* go silent instead of closing */
    atomic_uint connections;           /* seen so far */
    atomic_int running;                /* threads of connections */
    atomic_bool stop;
};

struct relay_pair {
    struct relay *relay;
    int client, server;
    uint64_t left; /* bytes until the disturbance */
};

static inline int connect_local(uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline bool send_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        data += sent;
        length -= (size_t)sent;
    }
    return true;
}

/* False: the connection ends. */
static inline bool relay_step(struct relay_pair *pair, bool *silent)
{
    static _Thread_local char data[65536];
    struct pollfd fds[] = {{.fd = pair->client, .events = POLLIN},
                           {.fd = *silent ? -1 : pair->server, .events = POLLIN}};
    if (poll(fds, 2, 20) < 0)
        return errno == EINTR;
    if (fds[0].revents != 0) {
        ssize_t got = recv(pair->client, data, sizeof data, 0);
        if (got <= 0 || (!*silent && !send_all(pair->server, data, (size_t)got)))
            return false;
    }
    if (fds[1].revents != 0) {
        ssize_t got = recv(pair->server, data, sizeof data, 0);
        if (got <= 0)
            return false;
        bool end = (uint64_t)got >= pair->left;
        size_t pass = end ? (size_t)pair->left : (size_t)got;
        if (!send_all(pair->client, data, pass))
            return false;
        pair->left -= pass;
        *silent = end;
        return !end || atomic_load(&pair->relay->stall);
    }
    return true;
}

static inline void *relay_connection(void *argument)
{
    struct relay_pair *pair = argument;
    struct relay *relay = pair->relay;
    bool silent = false;
    pair->server = connect_local(relay->upstream);
    bool on = pair->server >= 0 && pair->left > 0;
    while (on && !atomic_load(&relay->stop))
        on = relay_step(pair, &silent);
    close(pair->client);
    if (pair->server >= 0)
        close(pair->server);
    free(pair);
    atomic_fetch_sub(&relay->running, 1);
    return NULL;
}

static inline uint64_t cut_point(struct relay *relay, unsigned *seed)
{
    uint64_t least = atomic_load(&relay->least), most = atomic_load(&relay->most);
    return most <= least ? least : least + (uint64_t)rand_r(seed) % (most - least + 1);
}

static inline void *relay_accept(void *argument)
{
    struct relay *relay = argument;
    unsigned seed = 7;
    while (!atomic_load(&relay->stop)) {
        struct pollfd item = {.fd = relay->listener, .events = POLLIN};
        if (poll(&item, 1, 20) != 1)
            continue;
        int client = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            continue;
        struct relay_pair *pair = calloc(1, sizeof *pair);
        *pair = (struct relay_pair){.relay = relay, .client = client, .left = UINT64_MAX};
        atomic_fetch_add(&relay->connections, 1);
        if (atomic_fetch_sub(&relay->disturb, 1) > 0)
            pair->left = cut_point(relay, &seed);
        pthread_t thread;
        atomic_fetch_add(&relay->running, 1);
        pthread_create(&thread, NULL, relay_connection, pair);
        pthread_detach(thread);
    }
    return NULL;
}

static inline void start_relay(struct relay *relay, uint16_t upstream)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    relay->upstream = upstream;
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(relay->listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(getsockname(relay->listener, (struct sockaddr *)&address, &size), 0);
    ck_assert_int_eq(listen(relay->listener, 10), 0);
    relay->port = ntohs(address.sin_port);
    ck_assert_int_eq(pthread_create(&relay->thread, NULL, relay_accept, relay), 0);
}

static inline void stop_relay(struct relay *relay)
{
    atomic_store(&relay->stop, true);
    pthread_join(relay->thread, NULL);
    while (atomic_load(&relay->running) > 0)
        usleep(1000);
    close(relay->listener);
}

#endif
