/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A server that answers the questions of an inventory from tables, and those of its events from a script.
 */
#ifndef XV_TESTS_INVENTORY_POOL_H
#define XV_TESTS_INVENTORY_POOL_H

#include "http_server.h"
#include "unit.h"
#include "xenapi/inventory.h"

#define SOON_MS 30000

/* Records by class: "key=value" members separated by commas, records by ';', the reference before ':'.
 * A value that begins with '!' is taken as XML. */
struct pool {
    struct server server;
    const char *classes[16][2];
    atomic_int cut;      /* connections to cut in the middle of VDI.get_all_records */
    const char *broken;  /* a class whose records as a whole are not well-formed */
    const char *lost;    /* a reference whose record is not well-formed */
    const char *unknown; /* a class the server does not have */
    bool mute;           /* no event.from */
    bool hasty;          /* event.from answers at once, also without events */
    const char
        *script[8]; /* Values that event.from answers with, one after another; "!CODE": that error,
                              "!": the connection is cut */
    atomic_int played;   /* of script */
    atomic_int readings; /* VM.get_all_records */
    atomic_int waits;    /* event.from with a token */
};

static inline struct xv_buffer *add(struct xv_buffer *text, const char *more)
{
    ck_assert_int_eq(xv_buffer_add_text(text, more, NULL), 0);
    return text;
}

static inline void add_record(struct xv_buffer *text, char *members)
{
    char *rest = NULL;
    add(text, "<struct>");
    for (char *member = strtok_r(members, ",", &rest); member != NULL;
         member = strtok_r(NULL, ",", &rest)) {
        char *value = strchr(member, '=');
        *value++ = '\0';
        add(add(add(text, "<member><name>"), member), "</name><value>");
        add(add(text, *value == '!' ? value + 1 : value), "</value></member>");
    }
    add(text, "</struct>");
}

static inline const char *records_of(const struct pool *pool, const char *class_name)
{
    for (size_t i = 0; i < 16 && pool->classes[i][0] != NULL; i++) {
        if (strcmp(pool->classes[i][0], class_name) == 0)
            return pool->classes[i][1];
    }
    return "";
}

static inline bool answer(struct peer *peer, const char *value)
{
    struct xv_buffer text;
    xv_buffer_init(&text, 1 << 20);
    add(add(add(&text,
                "<?xml version=\"1.0\"?><methodResponse><params><param><value><struct><member>"
                "<name>Status</name><value>Success</value></member><member><name>Value"
                "</name><value>"),
            value),
        "</value></member></struct></value></param></params></methodResponse>");
    bool good = peer_body(peer, text.data);
    xv_buffer_free(&text);
    return good;
}

static inline bool refuse(struct peer *peer, const char *code)
{
    char text[1024];
    snprintf(text, sizeof text,
             "<methodResponse><params><param><value><struct><member><name>Status</name><value>"
             "Failure</value></member><member><name>ErrorDescription</name><value><array><data>"
             "<value>%s</value><value>x</value></data></array></value></member></struct></value>"
             "</param></params></methodResponse>",
             code);
    return peer_body(peer, text);
}

/* What of a class a method asks for: all records, all references, or one record. */
static inline bool answer_class(struct pool *pool, struct peer *peer, const char *class_name,
                                const char *method)
{
    char copy[8192];
    struct xv_buffer text;
    char *rest = NULL;
    bool all = strcmp(method, "get_all_records") == 0;
    bool refs = strcmp(method, "get_all") == 0;
    snprintf(copy, sizeof copy, "%s", records_of(pool, class_name));
    xv_buffer_init(&text, 1 << 20);
    add(&text, all ? "<struct>" : refs ? "<array><data>" : "");
    for (char *record = strtok_r(copy, ";", &rest); record != NULL;
         record = strtok_r(NULL, ";", &rest)) {
        char *members = strchr(record, ':');
        *members++ = '\0';
        if (all) {
            add(add(add(&text, "<member><name>"), record), "</name><value>");
            add_record(&text, members);
            add(&text, "</value></member>");
        } else if (refs) {
            add(add(add(&text, "<value>"), record), "</value>");
        } else if (strstr(peer->request, record) != NULL) {
            add_record(&text, members);
            add(&text, pool->lost != NULL && strcmp(pool->lost, record) == 0 ? "<oops>" : "");
        }
    }
    add(&text, all ? "</struct>" : refs ? "</data></array>" : "");
    if (all && pool->broken != NULL && strcmp(pool->broken, class_name) == 0)
        add(&text, "<oops>");
    bool good = answer(peer, text.data);
    xv_buffer_free(&text);
    return good;
}

#define EVENTS(token, counts, events)                                                              \
    "<struct><member><name>events</name><value><array><data>" events                               \
    "</data></array></value></member><member><name>valid_ref_counts</name><value><struct>" counts  \
    "</struct></value></member><member><name>token</name><value>" token                            \
    "</value></member></struct>"
#define MEMBER(name, value) "<member><name>" name "</name><value>" value "</value></member>"
#define EVENT(class_name, operation, ref, snapshot)                                                \
    "<value><struct>" MEMBER("id", "1") MEMBER("class", class_name) MEMBER("operation", operation) \
        MEMBER("ref", ref) snapshot "</struct></value>"
#define SNAPSHOT(members)         MEMBER("snapshot", "<struct>" members "</struct>")
#define COUNT(class_name, number) MEMBER(class_name, "<i4>" number "</i4>")
#define YES                       "<boolean>1</boolean>"
#define NO                        "<boolean>0</boolean>"

/* A question with a timeout and nothing to tell waits a little, as a server's would. */
static inline bool answer_events(struct pool *pool, struct peer *peer)
{
    if (pool->mute)
        return refuse(peer, "MESSAGE_METHOD_UNKNOWN");
    if (strstr(peer->request, "<value>t") == NULL)
        return answer(peer, EVENTS("t0", "", ""));
    atomic_fetch_add(&pool->waits, 1);
    int next = atomic_load(&pool->played);
    const char *line = next < 8 ? pool->script[next] : NULL;
    if (line == NULL) {
        if (!pool->hasty && strstr(peer->request, "<double>0.0</double>") == NULL)
            usleep(300000);
        return answer(peer, EVENTS("t9", "", ""));
    }
    atomic_fetch_add(&pool->played, 1);
    if (line[0] == '!')
        return line[1] == '\0' ? false : refuse(peer, line + 1);
    return answer(peer, line);
}

static inline bool play(struct peer *peer, void *user)
{
    struct pool *pool = user;
    char method[128] = "";
    const char *start = strstr(peer->request, "<methodName>");
    if (start != NULL)
        sscanf(start, "<methodName>%127[^<]", method);
    char *dot = strchr(method, '.');
    if (dot == NULL)
        return false;
    *dot++ = '\0';
    if (strcmp(method, "session") == 0)
        return answer(peer, "OpaqueRef:s");
    if (strcmp(method, "event") == 0)
        return answer_events(pool, peer);
    if (strcmp(method, "VM") == 0 && strcmp(dot, "get_all_records") == 0)
        atomic_fetch_add(&pool->readings, 1);
    if (pool->unknown != NULL && strcmp(pool->unknown, method) == 0)
        return refuse(peer, "MESSAGE_METHOD_UNKNOWN");
    if (strcmp(method, "VDI") == 0 && atomic_load(&pool->cut) > 0) {
        atomic_fetch_sub(&pool->cut, 1);
        peer_text(peer, "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n<?xml version=\"1.0\"?>"
                        "<methodResponse><params><param><value><struct><member><name>Status</name>"
                        "<value>Success</value></member><member><name>Value</name><value><struct>"
                        "<member><name>v1</name><value><struct></struct></value></member>");
        return false;
    }
    return answer_class(pool, peer, method, dot);
}

static const struct pool sample = {
    .classes =
        {
            {"pool", "p:uuid=pool-1,name_label=Pool,master=h1,default_SR=s1,restrictions=!<struct>"
                     "<member><name>restrict_cbt</name><value>false</value></member></struct>"},
            {"host",
             "h1:uuid=host-1,name_label=one,address=127.0.0.1,metrics=m1,enabled=!<boolean>1"
             "</boolean>,API_version_major=2,API_version_minor=21;"
             "h2:uuid=host-2,name_label=two,address=127.0.0.2,metrics=m2"},
            {"host_metrics", "m1:live=!<boolean>1</boolean>;m2:live=!<boolean>0</boolean>"},
            {"SM",
             "d1:type=nfs,features=!<struct><member><name>VDI_CONFIG_CBT</name><value>1</value>"
             "</member></struct>"},
            {"SR", "s1:uuid=sr-1,name_label=store,type=nfs,physical_size=1000,"
                   "physical_utilisation=-1;s2:uuid=sr-2,name_label=other,type=iso"},
            {"PBD", "b1:host=h1,SR=s1,currently_attached=!<boolean>1</boolean>;"
                    "b2:host=h2,SR=s1,currently_attached=!<boolean>1</boolean>;"
                    "b3:host=gone,SR=s2,currently_attached=!<boolean>1</boolean>"},
            {"network",
             "n1:uuid=net-1,name_label=lan,bridge=xenbr0,purpose=!<array><data><value>nbd"
             "</value></data></array>"},
            {"PIF", "i1:host=h1,network=n1,IP=127.0.0.1,currently_attached=!<boolean>1</boolean>"},
            {"VDI", "v1:uuid=vdi-1,name_label=disk,SR=s1,virtual_size=4096,type=user,other_config="
                    "!<struct><member><name>xvsa</name><value>tag</value></member></struct>;"
                    "v2:uuid=vdi-2,SR=nowhere,virtual_size=-5"},
            {"VBD", "x1:VM=g1,VDI=v1,type=Disk,userdevice=0,mode=RW;"
                    "x2:VM=g1,VDI=OpaqueRef:NULL,type=CD,userdevice=3;x3:VM=gone,VDI=v2,type=Disk"},
            {"VIF", "f1:VM=g1,network=n1,device=0,MAC=02:00:00:00:00:01;f2:VM=g2,network=gone"},
            {"VM", "g1:uuid=vm-1,name_label=web,power_state=Running,resident_on=h1,tags=!<array>"
                   "<data><value>a</value><value>b</value></data></array>;g2:uuid=vm-2,name_label="
                   "old,power_state=Halted,is_a_template=!<boolean>1</boolean>"},
        },
};

static inline struct xv_client *connect_to(struct pool *pool)
{
    struct xv_client *client = NULL;
    xvsa_error *error = NULL;
    server_start(&pool->server, false, play, pool);
    const char *url = pool->server.url;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    struct xv_client_options options = {.urls = &url,
                                        .url_count = 1,
                                        .username = "root",
                                        .password = "x",
                                        .flags = XVSA_POOL_ALLOW_PLAIN_HTTP};
    ck_ok(xv_client_open(&options, &call, &client, &error), error);
    return client;
}

static inline void disconnect(struct pool *pool, struct xv_client *client)
{
    xv_client_free(client);
    server_stop(&pool->server);
}

static inline struct xv_inventory *read_from(struct xv_client *client)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_inventory_read(client, &call, &all, &error), error);
    return all;
}

#endif
