# Verifies the DKIM signatures of the mail on standard input with Mail::DKIM, which did not write them.
# Arguments: "<name in the DNS>=<record>". Prints algorithm and result of each signature.
use strict;
use warnings;
use Mail::DKIM::Verifier;
use Mail::DKIM::PublicKey;

my %records = map { my ($name, $record) = split /=/, $_, 2; (lc $name => $record) } @ARGV;
{
    no warnings 'redefine';
    *Mail::DKIM::PublicKey::fetch_async = sub {
        my ($class, %prms) = @_;
        my $name = lc "$prms{Selector}._domainkey.$prms{Domain}";
        my $on_success = $prms{Callbacks}{Success} || sub { $_[0] };
        my $record = $records{$name};
        my $key = defined $record ? Mail::DKIM::PublicKey->parse($record) : undef;
        return sub { $on_success->($key) };
    };
}
my $verifier = Mail::DKIM::Verifier->new();
binmode STDIN;
while (my $line = <STDIN>) {
    $line =~ s/\015?\012$//;
    $verifier->PRINT("$line\015\012");
}
$verifier->CLOSE;
for my $signature ($verifier->signatures) {
    print $signature->algorithm, " ", $signature->result, "\n";
}
