/* Plan without Python: decisions of a folder that mpc.deploy.iree.compiled wrote, by IREE's own runner.

       cc -I folder -o planner planner.c
       echo "0.5 0.0" | ./planner folder /path/to/iree-run-module

   reads observations, one a line, and prints the action and the whole plan for each. Starting the runner for every decision
   costs some milliseconds and keeps this file short; a control loop links IREE's runtime library and calls the same two
   modules with the same arguments, which planner.h lists. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "planner.h"

#define MOST 512 /* arguments of one call, and characters of one of them */

static void die(const char *what) {
  perror(what);
  exit(1);
}

/* A vector of float32 in NumPy's format, version 1.0: magic, length of the header, header, numbers. */
static void write_npy(const char *path, const float *values, int count) {
  char header[118];
  FILE *file = fopen(path, "wb");
  if (!file) die(path);
  memset(header, ' ', sizeof header);
  int length = snprintf(header, sizeof header, "{'descr': '<f4', 'fortran_order': False, 'shape': (%d,), }", count);
  header[length] = ' ';
  header[sizeof header - 1] = '\n';
  fwrite("\x93NUMPY\x01\x00", 1, 8, file);
  fputc(sizeof header, file);
  fputc(0, file);
  fwrite(header, 1, sizeof header, file);
  if (fwrite(values, sizeof *values, count, file) != (size_t)count || fclose(file)) die(path);
}

static void read_npy(const char *path, float *values, int count) {
  unsigned char begin[10];
  FILE *file = fopen(path, "rb");
  if (!file || fread(begin, 1, sizeof begin, file) != sizeof begin || begin[6] != 1) die(path);
  fseek(file, begin[8] | begin[9] << 8, SEEK_CUR);
  if (fread(values, sizeof *values, count, file) != (size_t)count) die(path);
  fclose(file);
}

static void call(const char *runner, const char *module, const char **inputs, const char **outputs) {
  static char text[MOST][MOST];
  char *arguments[MOST];
  int count = 0;
  snprintf(text[count++], MOST, "%s", runner);
  snprintf(text[count++], MOST, "--module=%s", module);
  snprintf(text[count++], MOST, "--function=main");
  snprintf(text[count++], MOST, "--device=local-sync");
  for (; *inputs && count < MOST - 1; inputs++) snprintf(text[count++], MOST, "--input=@%s", *inputs);
  for (; *outputs && count < MOST - 1; outputs++) snprintf(text[count++], MOST, "--output=@%s", *outputs);
  for (int i = 0; i < count; i++) arguments[i] = text[i];
  arguments[count] = NULL;
  int status;
  pid_t child = fork();
  if (child < 0) die("fork");
  if (child == 0) {
    if (!freopen("/dev/null", "w", stdout)) die("/dev/null");
    execv(runner, arguments);
    die(runner);
  }
  if (waitpid(child, &status, 0) < 0 || status != 0) {
    fprintf(stderr, "%s failed\n", module);
    exit(1);
  }
}

int main(int count, char **arguments) {
  float observation[OBSERVATION], actions[HORIZON * ACTION];
  if (count != 3) {
    fprintf(stderr, "usage: %s FOLDER IREE_RUN_MODULE < observations\n", arguments[0]);
    return 2;
  }
  if (chdir(arguments[1])) die(arguments[1]);
  for (int begun = 0;; begun = 1) {
    for (int i = 0; i < OBSERVATION; i++)
      if (scanf("%f", &observation[i]) != 1) return 0;
    write_npy("observation.npy", observation, OBSERVATION);
    if (!begun) call(arguments[2], "init.vmfb", INIT_INPUTS, INIT_OUTPUTS);
    call(arguments[2], "step.vmfb", STEP_INPUTS, STEP_OUTPUTS);
    read_npy("actions.npy", actions, HORIZON * ACTION);
    for (int i = 0; i < HORIZON * ACTION; i++) printf("%.9g%c", actions[i], i + 1 < HORIZON * ACTION ? ' ' : '\n');
    fflush(stdout);
  }
}
