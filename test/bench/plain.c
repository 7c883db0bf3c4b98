/*-------------------------------------------------------------------------
 *
 * plain.c
 *		The same request again and again, on one easy handle of libcurl.
 *
 * plain URL COUNT [BODY]: GETs, or POSTs of BODY, over one connection kept
 * alive.  Prints requests per second, and CPU µs per request of this process.
 * It is what make bench compares the extension with, so it does nothing with
 * the answers but take them.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <curl/curl.h>

static char answer[65536];
static size_t answer_len;

static size_t
take_answer(char *data, size_t size, size_t nmemb, void *arg)
{
	size_t		n = size * nmemb;

	(void) arg;
	if (answer_len + n > sizeof(answer))
		return 0;
	memcpy(answer + answer_len, data, n);
	answer_len += n;
	return n;
}

static double
seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static double
cpu_seconds(void)
{
	struct rusage ru;

	getrusage(RUSAGE_SELF, &ru);
	return ru.ru_utime.tv_sec + ru.ru_stime.tv_sec +
		(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

/* The headers that the extension sends */
static struct curl_slist *
make_headers(const char *body)
{
	struct curl_slist *headers = NULL;

	headers = curl_slist_append(headers, "Accept: application/json");
	headers = curl_slist_append(headers, "Expect:");
	if (body != NULL)
		headers = curl_slist_append(headers, "Content-Type: application/json");
	return curl_slist_append(headers, "x-api-key: api_bench");
}

int
main(int argc, char **argv)
{
	const char *body = argc > 3 ? argv[3] : NULL;
	long		count = argc > 2 ? atol(argv[2]) : 0;
	CURL	   *easy = curl_easy_init();
	double		began = 0;
	double		cpu = 0;

	if (count < 1 || easy == NULL)
		return 2;
	curl_easy_setopt(easy, CURLOPT_URL, argv[1]);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, make_headers(body));
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_answer);
	if (body != NULL)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);

	/* the first request, which connects, is not counted */
	for (long i = 0; i <= count; i++)
	{
		long		status = 0;

		answer_len = 0;
		if (curl_easy_perform(easy) != CURLE_OK ||
			curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status) != CURLE_OK ||
			status != 200)
		{
			fprintf(stderr, "request %ld failed with HTTP status %ld\n", i, status);
			return 1;
		}
		if (i == 0)
		{
			began = seconds();
			cpu = cpu_seconds();
		}
	}
	printf("%.1f %.2f\n", count / (seconds() - began),
		   (cpu_seconds() - cpu) / count * 1e6);
	return 0;
}
