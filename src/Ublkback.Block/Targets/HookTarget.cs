using System.Globalization;

namespace Ublkback.Block;

/// <summary>A hook as a target names it.</summary>
/// <param name="Name">The hook's name.</param>
/// <param name="Arguments">What stands between its parentheses.</param>
public sealed record HookTarget(string Name, IReadOnlyDictionary<string, string> Arguments)
{
    private const double MaxSeconds = 86400;

    private static readonly (string Suffix, double Factor)[] DurationUnits =
        [("us", 1e-6), ("ms", 1e-3), ("s", 1)];

    private static readonly (string Suffix, double Factor)[] SizeUnits =
        [("K", 1L << 10), ("M", 1L << 20), ("G", 1L << 30), ("T", 1L << 40), ("", 1)];

    /// <summary>Reads <c>name</c> or <c>name(key=value,…)</c>.</summary>
    /// <exception cref="TargetException">It is neither; the message says where and why.</exception>
    public static HookTarget Parse(string text) => new TargetReader(text).ReadHookAlone();

    /// <summary>The same hook without an argument.</summary>
    public HookTarget Without(string key) =>
        this with { Arguments = Arguments.Where(argument => argument.Key != key).ToDictionary() };

    /// <summary>Refuses arguments that the hook does not know.</summary>
    /// <exception cref="TargetException">An argument has none of the names.</exception>
    public void AllowOnly(params ReadOnlySpan<string> keys)
    {
        foreach (string key in Arguments.Keys)
        {
            if (keys.Contains(key)) continue;
            throw new TargetException(keys.IsEmpty
                ? $"unknown argument {key}: it takes none"
                : $"unknown argument {key}: it takes {string.Join(", ", keys.ToArray())}");
        }
    }

    /// <summary>An argument as it is written; null when it is not there.</summary>
    public string? Get(string key) => Arguments.GetValueOrDefault(key);

    /// <summary>An argument that is one of a few words; the first is the default.</summary>
    /// <exception cref="TargetException">It is none of them.</exception>
    public string GetChoice(string key, params ReadOnlySpan<string> words)
    {
        if (Get(key) is not string value) return words[0];
        return words.Contains(value)
            ? value
            : throw new TargetException(
                $"{key}={value} is unknown", $"use {key}={string.Join($" or {key}=", words.ToArray())}");
    }

    /// <summary>A whole number from 0 on; null when it is not there.</summary>
    /// <exception cref="TargetException">It is no such number.</exception>
    public long? GetNumber(string key)
    {
        if (Get(key) is not string value) return null;
        return long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out long number)
            ? number
            : throw new TargetException($"{key}={value} is not a whole number");
    }

    /// <summary>A number from 0 to 1; null when it is not there.</summary>
    /// <exception cref="TargetException">It is no such number.</exception>
    public double? GetFraction(string key)
    {
        if (Get(key) is not string value) return null;
        return TryReadNumber(value, out double number) && number <= 1
            ? number
            : throw new TargetException($"{key}={value} is not a number from 0 to 1");
    }

    /// <summary>
    /// A size in bytes, written with one of the suffixes K, M, G, T (powers of 1024) or none; null when it is not
    /// there.
    /// </summary>
    /// <exception cref="TargetException">It is no size.</exception>
    public long? GetSize(string key) =>
        TryGetWithUnit(key, SizeUnits, out double size) ? (long)size : Missing<long>(key, "a size such as 10M");

    /// <summary>
    /// A duration, written with one of the suffixes us, ms or s, a day at most; null when it is not there.
    /// </summary>
    /// <exception cref="TargetException">It is no duration.</exception>
    public TimeSpan? GetDuration(string key) =>
        TryGetWithUnit(key, DurationUnits, out double seconds) && seconds <= MaxSeconds
        ? TimeSpan.FromSeconds(seconds)
        : Missing<TimeSpan>(key, "a duration such as 5ms");

    private T? Missing<T>(string key, string wanted)
        where T : struct =>
        Get(key) is string value ? throw new TargetException($"{key}={value} is not {wanted}") : null;

    private bool TryGetWithUnit(string key, (string Suffix, double Factor)[] units, out double value)
    {
        value = 0;
        const double Most = 1e15; // leaves room for arithmetic in 64 bits
        if (Get(key) is not string text) return false;
        foreach ((string suffix, double factor) in units)
        {
            if (!text.EndsWith(suffix, StringComparison.Ordinal)) continue;
            if (!TryReadNumber(text[..^suffix.Length], out double number)) continue;
            value = number * factor;
            return value <= Most;
        }

        return false;
    }

    // Digits and a point, no sign and no exponent.
    private static bool TryReadNumber(string text, out double number) =>
        double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out number);
}
