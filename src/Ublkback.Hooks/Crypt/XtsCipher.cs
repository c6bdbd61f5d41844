using System.Buffers.Binary;
using System.Numerics;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Ublkback.Hooks.Crypt;

/// <summary>
/// AES in XTS mode (IEEE 1619) with the number of the sector as tweak, which dm-crypt calls aes-xts-plain64. The block
/// cipher is the framework's. One thread at a time; allocates nothing.
/// </summary>
internal sealed class XtsCipher : IDisposable
{
    /// <summary>Bytes that share a tweak's start, whatever the sector size of the disk: dm-crypt's default.</summary>
    public const int SectorSize = 512;

    private const int BlockSize = 16;
    private const int SectorsPerPass = 64; // what a pass works on stays in the cache

    private readonly Aes _dataKey;
    private readonly Aes _tweakKey;
    private readonly ICryptoTransform _encryptTweak;
    private readonly ICryptoTransform _encryptData;
    private readonly ICryptoTransform _decryptData;
    private readonly byte[] _starts = new byte[SectorsPerPass * BlockSize];
    private readonly byte[] _encryptedStarts = new byte[SectorsPerPass * BlockSize];
    private readonly byte[] _tweaks = new byte[SectorsPerPass * SectorSize];
    private readonly byte[] _input = new byte[SectorsPerPass * SectorSize];
    private readonly byte[] _output = new byte[SectorsPerPass * SectorSize];

    /// <summary>Makes a cipher of a key of 32 or 64 bytes: the data's half, then the tweak's.</summary>
    public XtsCipher(ReadOnlySpan<byte> key)
    {
        _dataKey = MakeAes(key[..(key.Length / 2)]);
        _tweakKey = MakeAes(key[(key.Length / 2)..]);
        _encryptTweak = _tweakKey.CreateEncryptor();
        _encryptData = _dataKey.CreateEncryptor();
        _decryptData = _dataKey.CreateDecryptor();
    }

    /// <summary>Encrypts whole sectors; source and target may be the same.</summary>
    public void Encrypt(ulong sector, ReadOnlySpan<byte> from, Span<byte> to) =>
        Transform(_encryptData, sector, from, to);

    /// <summary>Decrypts whole sectors; source and target may be the same.</summary>
    public void Decrypt(ulong sector, ReadOnlySpan<byte> from, Span<byte> to) =>
        Transform(_decryptData, sector, from, to);

    /// <inheritdoc/>
    public void Dispose()
    {
        _encryptTweak.Dispose();
        _encryptData.Dispose();
        _decryptData.Dispose();
        _dataKey.Dispose();
        _tweakKey.Dispose();
    }

    private static Aes MakeAes(ReadOnlySpan<byte> key)
    {
        Aes aes = Aes.Create();
#pragma warning disable CA5358 // ECB is what XTS is made of; it is not used alone
        aes.Mode = CipherMode.ECB;
#pragma warning restore CA5358
        aes.Padding = PaddingMode.None;
        aes.SetKey(key);
        return aes;
    }

    private void Transform(ICryptoTransform cipher, ulong sector, ReadOnlySpan<byte> from, Span<byte> to)
    {
        for (int done = 0; done < from.Length;)
        {
            int length = Math.Min(from.Length - done, SectorsPerPass * SectorSize);
            MakeTweaks(sector + (ulong)(done / SectorSize), length / SectorSize);
            Xor(from.Slice(done, length), _tweaks, _input);
            cipher.TransformBlock(_input, 0, length, _output, 0);
            Xor(_output.AsSpan(0, length), _tweaks, to.Slice(done, length));
            done += length;
        }
    }

    private void MakeTweaks(ulong sector, int count)
    {
        for (int i = 0; i < count; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(_starts.AsSpan(i * BlockSize), sector + (ulong)i);
        _encryptTweak.TransformBlock(_starts, 0, count * BlockSize, _encryptedStarts, 0);
        Span<ulong> starts = MemoryMarshal.Cast<byte, ulong>(_encryptedStarts.AsSpan());
        Span<ulong> tweaks = MemoryMarshal.Cast<byte, ulong>(_tweaks.AsSpan());
        int next = 0;
        for (int i = 0; i < count; i++)
        {
            ulong low = starts[2 * i], high = starts[(2 * i) + 1];
            for (int block = 0; block < SectorSize / BlockSize; block++)
            {
                tweaks[next++] = low;
                tweaks[next++] = high;
                // Times the primitive element of GF(2^128), x^128 = x^7 + x^2 + x + 1.
                ulong carry = (ulong)((long)high >> 63) & 0x87;
                high = (high << 1) | (low >> 63);
                low = (low << 1) ^ carry;
            }
        }
    }

    private static void Xor(ReadOnlySpan<byte> a, ReadOnlySpan<byte> b, Span<byte> to)
    {
        ReadOnlySpan<Vector<byte>> left = MemoryMarshal.Cast<byte, Vector<byte>>(a);
        ReadOnlySpan<Vector<byte>> right = MemoryMarshal.Cast<byte, Vector<byte>>(b);
        Span<Vector<byte>> result = MemoryMarshal.Cast<byte, Vector<byte>>(to);
        for (int i = 0; i < left.Length; i++) result[i] = left[i] ^ right[i];
    }
}
