/* The least a test program in C needs: checks that name their place, and a count of failures. */
#ifndef POLYHEAD_TESTS_C_API_EXPECT_H
#define POLYHEAD_TESTS_C_API_EXPECT_H

#include <polyhead/c_api.h>
#include <stdio.h>
#include <string.h>

static int g_failures = 0;
static int g_checks = 0;

#define EXPECT(condition) expect_true((condition) ? 1 : 0, #condition, __FILE__, __LINE__)
#define EXPECT_OK(call) expect_ok((call), #call, __FILE__, __LINE__)
/* The call fails with this status, and its message has `words` in it. */
#define EXPECT_FAILS(status, words, call) \
  expect_fails((call), (status), (words), #call, __FILE__, __LINE__)

static void report(const char* what, const char* file, int line) {
  ++g_failures;
  fprintf(stderr, "%s:%d: %s\n", file, line, what);
}

static void expect_true(int holds, const char* what, const char* file, int line) {
  ++g_checks;
  if (!holds) report(what, file, line);
}

static void expect_ok(polyhead_status status, const char* what, const char* file, int line) {
  ++g_checks;
  if (status == POLYHEAD_OK) return;
  report(what, file, line);
  fprintf(stderr, "  got %s: %s\n", polyhead_status_name(status), polyhead_last_error());
}

static void expect_fails(polyhead_status status, polyhead_status wanted, const char* words,
                         const char* what, const char* file, int line) {
  ++g_checks;
  if (status == wanted && strstr(polyhead_last_error(), words) != NULL) return;
  report(what, file, line);
  fprintf(stderr, "  got %s: %s; wanted %s with \"%s\"\n", polyhead_status_name(status),
          polyhead_last_error(), polyhead_status_name(wanted), words);
}

static int verdict(const char* name) {
  printf("%s: %d checks, %d failures\n", name, g_checks, g_failures);
  return g_failures == 0 ? 0 : 1;
}

#endif
