/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "job/drawing.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* A document of thousands of VMs takes some tens of megabytes. */
#define DOCUMENT_MAX ((size_t)256 << 20)

static const char style[] =
    ":root{color-scheme:light dark;--back:#fff;--ground:#f3f5f7;--frame:#b8c1cb;--text:#1b2229;"
    "--faint:#5b6875;--covered:#0a7a5a;--one-host:#2a6fbb;--one-proxy:#b66a00;--unreached:#c01f3a;"
    "--none:#7d8894;--proxy:#6a4fb3}\n"
    "@media(prefers-color-scheme:dark){:root{--back:#14181d;--ground:#1d232a;--frame:#46515d;"
    "--text:#e6eaee;--faint:#9aa7b4;--covered:#35b58d;--one-host:#6aa9ef;--one-proxy:#e7a13d;"
    "--unreached:#f0667c;--none:#8b97a3;--proxy:#a48fe6}}\n"
    "@media print{:root{color-scheme:light;--back:#fff;--ground:#f3f5f7;--frame:#b8c1cb;"
    "--text:#000;--faint:#444;--covered:#0a7a5a;--one-host:#2a6fbb;--one-proxy:#b66a00;"
    "--unreached:#c01f3a;--none:#7d8894;--proxy:#6a4fb3}.pools{overflow:visible}"
    "svg.pool{max-width:100%;height:auto}*{print-color-adjust:exact;"
    "-webkit-print-color-adjust:exact}}\n"
    "body{margin:24px;background:var(--back);color:var(--text);"
    "font:14px/1.45 system-ui,'DejaVu Sans','Liberation Sans',sans-serif}"
    "h1{font-size:22px;margin:0}h2{font-size:18px;margin:32px 0 4px}h3{font-size:14px;"
    "margin:16px 0 6px}.note{color:var(--faint);font-size:12px;font-weight:normal}\n"
    ".covered{--key:var(--covered)}.one-host{--key:var(--one-host)}"
    ".one-proxy{--key:var(--one-proxy)}.unreached{--key:var(--unreached)}.none{--key:var(--none)}"
    ".proxy{--key:var(--proxy)}\n"
    ".legend{display:flex;flex-wrap:wrap;gap:6px 22px;margin:14px 0;padding:0;list-style:none}"
    ".legend li,.state{white-space:nowrap}.legend svg,.state svg{vertical-align:-1px}\n"
    ".pools{display:flex;flex-wrap:wrap;align-items:flex-start;gap:18px;overflow-x:auto}"
    "svg.pool{flex:none}\n"
    "svg{fill:var(--text)}.mark{fill:var(--key)}"
    "svg.pool text{font-family:ui-monospace,'DejaVu Sans Mono','Liberation Mono',Menlo,Consolas,"
    "monospace;white-space:pre}.pool .name,svg .pool{font-weight:bold}"
    ".small{fill:var(--faint)}.count{fill:var(--key)}\n"
    ".frame{fill:var(--back);stroke:var(--frame);stroke-width:1.5}.ground{fill:var(--ground)}"
    ".host rect{fill:var(--back);stroke:var(--frame)}.away rect{stroke-dasharray:4 3}"
    ".chip rect{fill:var(--key);fill-opacity:.13;stroke:var(--key);stroke-opacity:.7}"
    ".chip.first rect{stroke-width:2.5;stroke-opacity:1}"
    ".bar rect{fill:var(--key);fill-opacity:.25;stroke:var(--key)}"
    ".chip .under{fill:var(--back);fill-opacity:1;stroke:none}"
    ".bar .span{stroke:var(--key);stroke-width:3;fill:none}.bar.none rect{stroke-dasharray:4 3}"
    ".reach path{stroke:var(--proxy);stroke-width:1.5;fill:none}"
    ".reach circle{fill:var(--back);stroke:var(--proxy);stroke-width:1.5}\n"
    "table{border-collapse:collapse;width:100%;font-size:13px}"
    "th,td{text-align:left;vertical-align:top;padding:4px 10px;border-bottom:1px solid "
    "var(--frame)}th{color:var(--faint);font-weight:600}.number{text-align:right;"
    "white-space:nowrap}.state{color:var(--key);font-weight:600}summary{cursor:pointer}.findings "
    "td:first-child{width:8em}"
    ".findings td:nth-child(2){width:42%}.advice td:first-child{width:22%}"
    ".all{margin-top:12px}.disks tr:not(.first) td{border-top:0}\n";

static const char *const states[][2] = {
    {"covered", "no single loss leaves it unreached"},
    {"one-host", "the loss of one host would"},
    {"one-proxy", "the loss of one proxy would"},
    {"unreached", "nobody reaches it"},
};

static void add_symbol(struct xv_page *page, const char *state)
{
    xv_page_format(page,
                   "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"%s\" width=\"12\" "
                   "height=\"12\" viewBox=\"-1 -1 10 10\">",
                   state);
    xv_drawing_add_mark(page, state, 0, 0);
    xv_page_format(page, "</svg>");
}

static size_t count_vms(const json_t *pools, const char *state)
{
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(pools); i++) {
        const json_t *vms = json_object_get(json_array_get(pools, i), "vms");
        for (size_t j = 0; j < json_array_size(vms); j++)
            count += strcmp(xv_drawn_text(json_array_get(vms, j), "state"), state) == 0;
    }
    return count;
}

static void add_legend(struct xv_page *page, const json_t *pools)
{
    xv_page_format(page, "<ul class=\"legend\">\n");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        size_t count = count_vms(pools, states[i][0]);
        xv_page_format(page, "<li>");
        add_symbol(page, states[i][0]);
        xv_page_format(page, " %s <span class=\"note\">(%zu VM%s)</span></li>\n", states[i][1],
                       count, count == 1 ? "" : "s");
    }
    xv_page_format(page, "<li>");
    add_symbol(page, "none");
    xv_page_format(page, " holds no disk of these VMs</li>\n<li>");
    add_symbol(page, "proxy");
    xv_page_format(page, " proxy; a bold frame: it coordinates the pool. The number where its line "
                         "meets a bar: proxies of the host that reach the storage</li>\n</ul>\n");
}

static void add_instant(struct xv_page *page, const json_t *document)
{
    time_t seconds = (time_t)(json_integer_value(json_object_get(document, "made_ms")) / 1000);
    struct tm parts;
    char text[48];
    if (seconds > 0 && gmtime_r(&seconds, &parts) != NULL &&
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts) > 0)
        xv_page_format(page, " <span class=\"note\">as of %s</span>", text);
}

static void add_head(struct xv_page *page)
{
    xv_page_format(page, "<!DOCTYPE html>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" "
                         "lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                         "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src "
                         "'none'; style-src 'unsafe-inline'\"/>\n"
                         "<meta name=\"viewport\" content=\"width=device-width\"/>\n"
                         "<title>Deployment</title>\n");
    xv_page_format(page, "<style>%s</style>\n</head>\n", style);
}

static int add_pools(struct xv_page *page, const json_t *pools)
{
    xv_page_format(page, "<div class=\"pools\">\n");
    for (size_t i = 0; page->rc == 0 && i < json_array_size(pools); i++) {
        struct xv_drawn_pool drawn;
        page->rc = xv_drawn_pool_make(json_array_get(pools, i), &drawn, page->error);
        if (page->rc != 0)
            break;
        xv_drawing_add_pool(page, &drawn);
        xv_drawn_pool_free(&drawn);
    }
    xv_page_format(page, "</div>\n");
    return page->rc;
}

static int parse(const char *text, json_t **ret, xvsa_error **error)
{
    size_t length = strnlen(text, DOCUMENT_MAX + 1);
    if (length > DOCUMENT_MAX)
        return xv_fail(error, XVSA_ERR_LIMIT, "job", "deployment: longer than %zu bytes",
                       DOCUMENT_MAX);
    json_error_t fault;
    json_t *document = json_loadb(text, length, JSON_REJECT_DUPLICATES, &fault);
    if (document == NULL)
        return xv_fail(error, XVSA_ERR_INVALID, "job", "deployment: line %d, column %d: %s",
                       fault.line, fault.column, fault.text);
    const json_t *pools = json_object_get(document, "pools");
    bool good = json_is_array(pools);
    for (size_t i = 0; good && i < json_array_size(pools); i++)
        good = json_is_array(json_object_get(json_array_get(pools, i), "vms"));
    if (!good) {
        json_decref(document);
        return xv_fail(error, XVSA_ERR_INVALID, "job",
                       "deployment: not the document that xvsa_deployment_plan makes");
    }
    *ret = document;
    return 0;
}

int xv_drawing_make(const char *deployment, char **ret, xvsa_error **error)
{
    json_t *document = NULL;
    int rc = parse(deployment, &document, error);
    if (rc != 0)
        return rc;
    const json_t *pools = json_object_get(document, "pools");
    struct xv_page page;
    xv_page_init(&page, error);
    add_head(&page);
    xv_page_format(&page, "<body>\n<h1>Deployment");
    add_instant(&page, document);
    xv_page_format(&page, "</h1>\n");
    add_legend(&page, pools);
    rc = add_pools(&page, pools);
    for (size_t i = 0; rc == 0 && i < json_array_size(pools); i++)
        xv_drawing_add_tables(&page, json_array_get(pools, i));
    xv_page_format(&page, "</body>\n</html>\n");
    json_decref(document);
    return xv_page_end(&page, ret);
}
