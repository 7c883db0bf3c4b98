# The main job, once: extension, account, a question and its answer.
use strict;
use warnings FATAL => 'all';

use Test::More;

use SixtyfourTest;

my $mock = SixtyfourTest::Mock->start('--keys' => 'api_good');
my $node = SixtyfourTest::cluster('basic', $mock);

is( $node->safe_psql('postgres',
		q{SELECT sixtyfour_best_email(sixtyfour_find_email('{"name":"Jane Doe","company":"Acme"}'))}),
	'jane.doe@acme.example',
	'a question from a query is answered');
is($mock->summary->{accepted}, 1, 'the service accepted one request');
is($mock->summary->{billed_cents}, 5, 'and billed it once');

done_testing();
