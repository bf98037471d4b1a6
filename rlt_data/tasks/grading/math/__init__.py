"""The grader `math`: are two answers equal as mathematics?"""
