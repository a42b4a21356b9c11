# Usage: perl client.pl BASE_URL cello|relay; nothing but Perl's core modules.
use strict;
use warnings;
use HTTP::Tiny;
use IO::Compress::Gzip qw(gzip);
use JSON::PP qw(encode_json decode_json);

my ($base, $mode) = @ARGV;
my $http = HTTP::Tiny->new(timeout => 20, keep_alive => 1);

sub event {
    my ($user, $n, $pad) = @_;
    return {
        eventName => 'ReferralUpdated',
        payload   => { ucc => 'cello-ucc', newUserId => $user },
        context   => {
            n     => $n,
            pad   => $pad // '',
            event => { trigger => 'new-signup', timestamp => '2026-11-20T03:18:01.620Z' },
        },
    };
}

sub send_it {
    my ($method, $path, $options) = @_;
    my $answer = $http->request($method, $base . $path, $options);
    die $answer->{content} if $answer->{status} == 599;    # nobody answered
    return ($answer->{status}, decode_json($answer->{content}));
}

sub post {
    my ($path, $body, %headers) = @_;
    my $text = ref($body) =~ /HASH|ARRAY/ ? encode_json($body) : $body;
    return send_it('POST', $path, { content => $text, headers => { 'Content-Type' => 'application/json', %headers } });
}

sub lines { return join '', map { encode_json($_) . "\n" } @_ }

sub truth { return $_[0] ? 'true' : 'false' }

my ($status, $tokens) = post('/token', { accessKeyId => 'key-id', secretAccessKey => 'secret-key' });
print "token $status\n";
($status) = post('/token', { refreshToken => $tokens->{refreshToken} });
print "refresh $status\n";
my %bearer = (Authorization => "Bearer $tokens->{accessToken}");
my $said;
($status, $said) = post('/events', event('document', 0), %bearer);
print "event $status ", truth($said->{success}), "\n";
($status) = post('/events', { eventName => 'ReferralUpdated', payload => {}, context => {} }, %bearer);
print "refused $status\n";
($status, $said) = send_it('GET', '/referral-codes/cello-ucc', { headers => \%bearer });
print "code $status ", truth($said->{valid}), "\n";
($status, $said) = send_it('GET', '/referral-codes/active-link/user%2F7', { headers => \%bearer });
print "link $status $said->{link}\n";
exit if $mode ne 'relay';

($status, $said) = post('/events/batch', [ event('batch', 0), event('batch', 1) ]);
print "batch $status ", scalar @{ $said->{ids} }, "\n";
my %ndjson = ('Content-Type' => 'application/x-ndjson');
($status, $said) = post('/events/batch', lines(event('lines', 0), event('lines', 1)), %ndjson);
print "lines $status ", scalar @{ $said->{ids} }, "\n";
my $text = encode_json(event('gzip', 0));
gzip \$text => \my $packed or die 'gzip failed';
($status, $said) = post('/events', $packed, 'Content-Encoding' => 'gzip');
print "gzip $status ", truth($said->{success}), "\n";
# A body that a function gives goes out in chunks.
my $rest = encode_json(event('chunked', 0));
($status, $said) = post('/events', sub { length $rest ? substr $rest, 0, 50, '' : '' });
print "chunked $status ", truth($said->{success}), "\n";
($status, $said) = post('/events/batch', lines(map { event('large', $_, 'x' x 200_000) } 0 .. 9), %ndjson);
print "large $status ", scalar @{ $said->{ids} }, "\n";
my $taken = grep { (post('/events', event('posts', $_)))[0] == 200 } 0 .. 99;
print "posts $taken\n";
