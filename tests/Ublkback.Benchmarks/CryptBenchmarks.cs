using BenchmarkDotNet.Attributes;
using Ublkback.Hooks.Crypt;

namespace Ublkback.Benchmarks;

/// <summary>Encryption of a request's data on one core.</summary>
[MemoryDiagnoser]
public class CryptBenchmarks
{
    private readonly XtsCipher _cipher = new(new byte[64]);
    private byte[] _data = [];

    [Params(4096, 131072)]
    public int Bytes { get; set; }

    [GlobalSetup]
    public void Allocate() => _data = new byte[Bytes];

    [Benchmark]
    public void Encrypt() => _cipher.Encrypt(2048, _data, _data);

    [Benchmark]
    public void Decrypt() => _cipher.Decrypt(2048, _data, _data);
}
