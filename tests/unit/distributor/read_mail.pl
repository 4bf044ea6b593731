# Reads one mail from standard input and tells what it found as JSON: a reader that shares nothing with the writer.
use strict;
use warnings;
use Encode qw(decode);
use JSON::PP;
use MIME::QuotedPrint qw(decode_qp);

binmode STDIN;
my $mail = do { local $/; <STDIN> };
my %found = (bare => 0, longest => 0, headers => [], parts => []);
$found{bare}++ while $mail =~ /(?<!\r)\n|\r(?!\n)/g;
for my $line (split /\r\n/, $mail, -1) {
    $found{longest} = length $line if length $line > $found{longest};
}
$found{eight_bit} = $mail =~ /[^\x00-\x7f]/ ? JSON::PP::true : JSON::PP::false;

sub fields {
    my ($head) = @_;
    $head =~ s/\r\n(?=[ \t])//g;
    return map { my ($name, $value) = split /:\s*/, $_, 2; [$name, decode('MIME-Header', $value)] } split /\r\n/, $head;
}

my ($head, $body) = split /\r\n\r\n/, $mail, 2;
my @fields = fields($head);
$found{headers} = \@fields;
my ($type) = map { $_->[1] } grep { lc $_->[0] eq 'content-type' } @fields;
my ($boundary) = $type =~ /boundary="([^"]+)"/;
my @pieces = split /(?:^|\r\n)--\Q$boundary\E(?:--)?\r\n/, "\r\n$body";
$found{preamble} = shift @pieces;
for my $piece (@pieces) {
    my ($part_head, $part_body) = split /\r\n\r\n/, $piece, 2;
    my %part = map { lc $_->[0] => $_->[1] } fields($part_head);
    my $text = decode('UTF-8', decode_qp($part_body), Encode::FB_CROAK);
    $text =~ s/\r\n/\n/g;
    push @{ $found{parts} }, { type => $part{'content-type'}, encoding => $part{'content-transfer-encoding'}, text => $text };
}
print JSON::PP->new->ascii->encode(\%found);
