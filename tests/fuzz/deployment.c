/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Input: a document "deployment". A page made of it must be well-formed XML without a script, whatever its
 * names hold.
 */
#include <libxml/parser.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "job/drawing.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, const xmlError *error)
{
    (void)context;
    (void)error;
}

static void check_element(const xmlNode *node)
{
    for (; node != NULL; node = node->next) {
        if (node->type == XML_ELEMENT_NODE && strcmp((const char *)node->name, "script") == 0)
            abort();
        for (const xmlAttr *attribute = node->type == XML_ELEMENT_NODE ? node->properties : NULL;
             attribute != NULL; attribute = attribute->next) {
            if (strncmp((const char *)attribute->name, "on", 2) == 0)
                abort();
        }
        check_element(node->children);
    }
}

static void check_page(const char *page)
{
    xmlSetStructuredErrorFunc(NULL, (xmlStructuredErrorFunc)(void (*)(void))ignore);
    xmlDoc *document = xmlReadMemory(page, (int)strlen(page), "page", NULL, XML_PARSE_NONET);
    if (document == NULL)
        abort();
    check_element(xmlDocGetRootElement(document));
    xmlFreeDoc(document);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char *page = NULL;
    xvsa_error *error = NULL;
    if (text == NULL)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    if (xv_drawing_make(text, &page, &error) == 0)
        check_page(page);
    else if (xvsa_error_message(error) == NULL)
        abort();
    xvsa_error_unref(error);
    free(page);
    free(text);
    return 0;
}
