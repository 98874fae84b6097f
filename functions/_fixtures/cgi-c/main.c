/* A CGI program in C (RFC 3875), built to a core module of WASI preview 1:
 *   /       the method, the query, and how many bytes of which sum came on standard input; a line to standard error
 *   /file   whether a file of the machine can be opened
 *   /exit   ends with status 3 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value ? value : "";
}

int main(void)
{
    const char *path = variable("PATH_INFO");
    if (strcmp(path, "/exit") == 0)
        return 3;
    if (strcmp(path, "/file") == 0) {
        FILE *file = fopen("/etc/passwd", "r");
        printf("Content-Type: text/plain\r\n\r\n%s\n", file ? "opened" : "refused");
        return 0;
    }
    unsigned char buffer[4096];
    unsigned long bytes = 0, sum = 0;
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, stdin)) > 0) {
        bytes += n;
        for (size_t i = 0; i < n; i++)
            sum += buffer[i];
    }
    if (ferror(stdin)) {
        fprintf(stderr, "standard input: %s\n", strerror(errno));
        return 1;
    }
    fprintf(stderr, "read %lu bytes\n", bytes);
    printf("Status: 201 Created\r\nContent-Type: text/plain\r\nX-Language: C%ld\r\n\r\n", __STDC_VERSION__);
    printf("%s %s %lu %lu %s\n", variable("REQUEST_METHOD"), variable("QUERY_STRING"), bytes, sum,
           time(NULL) > 1700000000 ? "now" : "then");
    return 0;
}
