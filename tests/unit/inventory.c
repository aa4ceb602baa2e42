/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "xenapi/inventory.h"

#include <jansson.h>

#include "http_server.h"
#include "unit.h"

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
};

static struct xv_buffer *add(struct xv_buffer *text, const char *more)
{
    ck_assert_int_eq(xv_buffer_add_text(text, more, NULL), 0);
    return text;
}

static void add_record(struct xv_buffer *text, char *members)
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

static const char *records_of(const struct pool *pool, const char *class_name)
{
    for (size_t i = 0; i < 16 && pool->classes[i][0] != NULL; i++) {
        if (strcmp(pool->classes[i][0], class_name) == 0)
            return pool->classes[i][1];
    }
    return "";
}

static bool answer(struct peer *peer, const char *value)
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

static bool refuse(struct peer *peer, const char *code)
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
static bool answer_class(struct pool *pool, struct peer *peer, const char *class_name,
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

static bool play(struct peer *peer, void *user)
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

static struct xv_client *connect_to(struct pool *pool)
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

static void disconnect(struct pool *pool, struct xv_client *client)
{
    xv_client_free(client);
    server_stop(&pool->server);
}

static struct xv_inventory *read_from(struct xv_client *client)
{
    struct xv_inventory *all = NULL;
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_ok(xv_inventory_read(client, &call, &all, &error), error);
    return all;
}

START_TEST(objects_and_links)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_str_eq(all->pool_uuid, "pool-1");
    ck_assert_str_eq(all->default_sr, "s1");
    ck_assert(all->cbt_licensed);
    ck_assert_int_eq(all->api_minor, 21);
    const struct xv_host *first = xv_inventory_host(all, "host-1");
    const struct xv_host *second = xv_inventory_host(all, "h2");
    const struct xv_sr *store = xv_inventory_sr(all, "sr-1");
    ck_assert(first->coordinator && first->live && first->enabled);
    ck_assert(!second->coordinator && !second->live && !second->enabled);
    ck_assert(store->supports_cbt);
    ck_assert(!xv_inventory_sr(all, "s2")->supports_cbt);
    ck_assert_uint_eq(store->physical_used, 0);
    ck_assert(xv_inventory_reaches(all, first, store));
    ck_assert(!xv_inventory_reaches(all, second, store));
    ck_assert(xv_inventory_network(all, "n1")->nbd);
    const struct xv_vm *vm = xv_inventory_vm(all, "vm-1");
    ck_assert_ptr_eq(vm, xv_inventory_vm(all, "g1"));
    ck_assert_uint_eq(vm->vbd_count, 2);
    ck_assert_uint_eq(vm->vif_count, 1);
    ck_assert_uint_eq(vm->tag_count, 2);
    ck_assert_str_eq(vm->tags[1], "b");
    ck_assert_ptr_eq(vm->resident_on, first);
    ck_assert_str_eq(xv_inventory_vdi(all, "vdi-1")->tag, "tag");
    ck_assert_ptr_null(xv_inventory_vm(all, "vm-3"));
    ck_assert_ptr_null(xv_inventory_vm(all, ""));
    ck_assert_ptr_null(xv_inventory_vm(all, "vdi-1"));
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(dangling_references)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_ptr_null(xv_inventory_vdi(all, "v2")->sr);
    ck_assert_uint_eq(xv_inventory_vdi(all, "v2")->size, 0);
    ck_assert_uint_eq(all->vbd_count, 3);
    size_t without_vm = 0;
    for (size_t i = 0; i < all->vbd_count; i++)
        without_vm += all->vbds[i].vm == NULL;
    ck_assert_uint_eq(without_vm, 1);
    ck_assert_ptr_null(xv_inventory_vm(all, "g2")->vifs[0]->network);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(document)
{
    struct pool pool = sample;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    xvsa_error *error = NULL;
    char *text = NULL;
    ck_ok(xv_inventory_to_json(all, &text, &error), error);
    json_t *json = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(json);
    const json_t *vms = json_object_get(json, "vms");
    ck_assert_uint_eq(json_array_size(vms), 1);
    const json_t *vm = json_array_get(vms, 0);
    ck_assert_uint_eq(json_array_size(json_object_get(vm, "disks")), 1);
    ck_assert_str_eq(json_string_value(json_object_get(vm, "host")), "host-1");
    const json_t *sr = json_array_get(json_object_get(json, "srs"), 0);
    ck_assert_uint_eq(json_array_size(json_object_get(sr, "hosts")), 1);
    json_decref(json);
    free(text);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(lost_connection_begins_anew)
{
    struct pool pool = sample;
    pool.cut = 1;
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_uint_eq(all->vdi_count, 2);
    xv_inventory_free(all);
    atomic_store(&pool.cut, 1000);
    xvsa_error *error = NULL;
    struct xv_call call = xv_call_within(NULL, SOON_MS);
    ck_fails(xv_inventory_read(client, &call, &all, &error), XVSA_ERR_NETWORK, error);
    disconnect(&pool, client);
}
END_TEST

START_TEST(broken_records_are_read_singly)
{
    struct pool pool = sample;
    pool.broken = "VM";
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert_uint_eq(all->vm_count, 2);
    ck_assert_str_eq(xv_inventory_vm(all, "vm-1")->name, "web");
    ck_assert_uint_eq(all->omission_count, 0);
    xv_inventory_free(all);
    /* What is not there is told. */
    xvsa_error *error = NULL;
    char *text = NULL;
    pool.lost = "g2";
    all = read_from(client);
    ck_assert_uint_eq(all->vm_count, 1);
    ck_assert_uint_eq(all->omission_count, 1);
    ck_assert_str_eq(all->omissions[0].class_name, "VM");
    ck_assert_str_eq(all->omissions[0].ref, "g2");
    ck_ok(xv_inventory_to_json(all, &text, &error), error);
    ck_assert_ptr_nonnull(strstr(text, "\"omissions\":[{\"class\":\"VM\",\"ref\":\"g2\""));
    free(text);
    xv_inventory_free(all);
    disconnect(&pool, client);
}
END_TEST

START_TEST(old_servers)
{
    struct pool pool = sample;
    pool.unknown = "SM";
    struct xv_client *client = connect_to(&pool);
    struct xv_inventory *all = read_from(client);
    ck_assert(!xv_inventory_sr(all, "sr-1")->supports_cbt);
    xv_inventory_free(all);
    pool.unknown = "PBD";
    xvsa_error *error = NULL;
    ck_fails(xv_inventory_read(client, NULL, &all, &error), XVSA_ERR_UNSUPPORTED, error);
    disconnect(&pool, client);
}
END_TEST

static void fill(Suite *suite)
{
    TCase *all = tcase_create("inventory");
    tcase_set_timeout(all, 90);
    tcase_add_test(all, objects_and_links);
    tcase_add_test(all, dangling_references);
    tcase_add_test(all, document);
    tcase_add_test(all, lost_connection_begins_anew);
    tcase_add_test(all, broken_records_are_read_singly);
    tcase_add_test(all, old_servers);
    suite_add_tcase(suite, all);
}

UNIT_MAIN("inventory")
