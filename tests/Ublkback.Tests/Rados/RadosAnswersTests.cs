using NUnit.Framework;
using Ublkback.Rados.Bindings;

namespace Ublkback.Tests.Rados;

/// <summary>The answers of those who watch an object, as librados puts them together.</summary>
public sealed class RadosAnswersTests
{
    private static readonly byte[] Ids = new byte[16];

    [Test]
    public void Answers_that_are_empty_and_who_is_silent_are_told_apart()
    {
        byte[] reply = [2, 0, 0, 0, .. Ids, 3, 0, 0, 0, 7, 8, 9, .. Ids, 0, 0, 0, 0, 1, 0, 0, 0, .. Ids];
        (IReadOnlyList<byte[]> answers, int silent) = RadosAnswers.Read(reply);
        Assert.That(answers, Is.EqualTo(new byte[][] { [7, 8, 9] }));
        Assert.That(silent, Is.EqualTo(1));
    }

    [Test]
    public void Nobody_answers()
    {
        Assert.That(RadosAnswers.Read([]).Answers, Is.Empty);
        Assert.That(RadosAnswers.Read(new byte[8]).Silent, Is.Zero);
    }
}
